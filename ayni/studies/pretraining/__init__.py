"""Studies of pretraining and of supervised fine-tuning (paper 2 and 3.1)."""
