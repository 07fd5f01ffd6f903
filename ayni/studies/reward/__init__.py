"""Studies of the reward models (paper 3.2.2)."""
