"""Question 3: planar flows, many at a time."""
