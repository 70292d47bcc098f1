"""Question 1: the variational autoencoder of binary images."""
