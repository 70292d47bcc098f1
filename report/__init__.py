"""The report: a Typst document that reads every number from the experiments' JSON."""
