"""Tasks in the form of lm-eval: a YAML file each, over the JSON lines of evaldata.py, and what an answer earns (points.py)."""
