"""Question 2: generative adversarial networks, from the dirac game to images."""
