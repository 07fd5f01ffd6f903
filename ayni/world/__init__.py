"""The embedded default world: a small language world with ground truth, drawn from a seed (not part of the paper)."""
