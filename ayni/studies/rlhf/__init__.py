"""Studies of rejection sampling and PPO (paper 3.2.3)."""
