"""Grades other people's submissions of the assignment, and writes the hand-out: ``python -m grade --help``."""
