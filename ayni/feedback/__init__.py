"""Preferences: their format, the annotators who give them, and how well they agree (paper 3.2.1)."""
