"""Losses, batches, optimizer, device mesh, checkpoints and the one training loop; what a stage is for, it does not know."""
