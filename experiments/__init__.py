"""What the report needs, one file an experiment: ``python -m experiments``."""
