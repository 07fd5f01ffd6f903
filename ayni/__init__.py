"""Ayni: the Llama 2 recipe as working software."""

__version__ = "0.1.0"
