"""Build the report: ``python -m report``."""

from report.build import main

main()
