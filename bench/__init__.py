"""Ayni beside what a user would pick instead: `python -m bench` measures, and writes results.json and RESULTS.md."""
