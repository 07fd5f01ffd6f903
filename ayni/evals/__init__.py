"""Evaluation: prompts with gold answers, judges, statistics and the metrics of `results.json` (paper 3.4, 4.4)."""
