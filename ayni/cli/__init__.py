"""The commands, thin: read the flags, call one stage, say where the result is. In the order of --help:"""

from ayni.cli import runs, training, rlhf, measuring, comparing, attacking, weights, talking  # noqa: F401, I001
from ayni.cli.app import app, main

__all__ = ["app", "main"]
