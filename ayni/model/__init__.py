"""The Llama 2 network, its scalar heads, and checkpoints in the ecosystem's own formats."""

from ayni.model.heads import ScalarHead
from ayni.model.transformer import Transformer, block_causal_mask, init_weights

__all__ = ["ScalarHead", "Transformer", "block_causal_mask", "init_weights"]
