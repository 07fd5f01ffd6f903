"""What several tests of this room share: a small real model, small batches, the settings of a short run."""

import torch

from ayni.config import ModelSettings, OptimizerSettings
from ayni.model.transformer import Transformer, init_weights

SETTINGS = ModelSettings(vocab_size=61, dim=16, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=24, tie_embeddings=True)
OPTIMIZER = OptimizerSettings(lr=1e-2, warmup_steps=3)


def small_model(seed=0):
    model = Transformer(SETTINGS)
    init_weights(model, seed)
    return model


class RandomRows:
    """Pretraining rows that are a pure function of the step, as many as wanted."""

    def __init__(self, rows=7, length=9):
        self.rows, self.length = rows, length

    def at(self, step):
        generator = torch.Generator().manual_seed(1000 + step)
        return torch.randint(SETTINGS.vocab_size, (self.rows, self.length), generator=generator)


def random_sequences(n, longest, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (n,), generator=generator).tolist()
    return [torch.randint(4, SETTINGS.vocab_size, (length,), generator=generator).tolist() for length in lengths]


def weights_equal(one, other):
    theirs = dict(other.named_parameters())
    return all(torch.equal(parameter, theirs[name]) for name, parameter in one.named_parameters())
