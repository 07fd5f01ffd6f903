"""A scalar head on a Llama body: the reward model (paper 3.2.2) and PPO's critic.

"The architecture and hyper-parameters of the model are identical to those of the pretrained language models, except
that the classification head for next-token prediction is replaced with a regression head for outputting a scalar reward."
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ayni.config import ModelSettings
from ayni.model.transformer import Spans, Transformer


class ScalarHead(nn.Module):
    """score(h) = w . norm(h): one number per token; a reward model reads the one at the last real token (TRAPS 12)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.body = Transformer(settings, lm_head=False)
        self.score = nn.Linear(settings.dim, 1, bias=False)

    @property
    def settings(self) -> ModelSettings:
        return self.body.settings

    @property
    def layers(self) -> nn.ModuleList:
        """The body's layers, so that sharding treats both kinds of model alike."""
        return self.body.layers

    def forward(
        self,
        tokens_BT: Int[Tensor, "B T"],
        positions_BT: Int[Tensor, "B T"] | None = None,
        mask_BTS: Bool[Tensor, "B T S"] | Spans | None = None,
        keep_N: Int[Tensor, " N"] | None = None,
    ) -> Tensor:
        """score_BT, or score_N at the chosen positions of the flattened B*T; in fp32 whatever the body works in."""
        h = self.body(tokens_BT, positions_BT, mask_BTS, keep_N=keep_N, head=False)
        return F.linear(h.float(), self.score.weight.float()).squeeze(-1)

    @classmethod
    def from_language_model(cls, model: Transformer) -> ScalarHead:
        """Copies the body ("knows what the chat model knows", paper 3.2.2); the score starts at zero, so that every
        answer is worth the same before training (paper silent)."""
        weight = model.tok_embeddings.weight
        with torch.device(weight.device):
            head = cls(model.settings).to(weight.dtype)
        body = {name: value for name, value in model.state_dict().items() if not name.startswith("output.")}
        head.body.load_state_dict(body)
        nn.init.zeros_(head.score.weight)
        return head
