"""Text scorers that annotators and reports may name: small pure functions, each with its source."""
