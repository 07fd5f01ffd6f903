"""Studies of safety, and of what holds through a dialogue (paper 3.3, 4)."""
