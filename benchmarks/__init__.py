"""Speed, measured against the textbook loop in the same run, in turns."""
