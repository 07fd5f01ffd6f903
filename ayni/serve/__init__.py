"""Talking to models: the terminal chat."""
