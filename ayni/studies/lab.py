"""Where a study's models come from: the recipe's own stages, run once for every seed and shared by all arms and studies.

An artifact's name is its stage and a digest of all that decides it (settings, inputs, seed), so that two arms that need
the same model find the same directory, and a study that is stopped goes on where it stood. Workers of several arms wait
for each other on a lock beside the artifact.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from ayni.artifacts import Artifact
from ayni.config import Settings
from ayni.evals.judging import Judge
from ayni.recipe import Recipe, VersionSettings, load_recipe
from ayni.scoring.reward import Scorers
from ayni.stages import data as data_stage
from ayni.stages import evaluate as evaluate_stage
from ayni.stages import ppo, preferences, pretrain, rejection, reward, sft, shards, tokenizer
from ayni.stages.preferences import Variant

Scale = Literal["full", "smoke"]
S = TypeVar("S", bound=BaseModel)


def load_scale(scale: Scale) -> Recipe:
    """The recipe that all studies vary: full.yaml, or smoke.yaml for seconds (its figures mean nothing)."""
    with as_file(files("ayni.studies") / f"{scale}.yaml") as path:
        return load_recipe(path)


def changed(settings: S, **updates: Any) -> S:
    """A copy with some fields changed, validated; a dict reaches inside (`optimizer={"lr": 1e-3}`)."""
    values = settings.model_dump()
    for key, value in updates.items():
        inner = values.get(key)
        values[key] = {**inner, **value} if isinstance(value, dict) and isinstance(inner, dict) else value
    return type(settings)(**values)


@dataclass(frozen=True)
class Lab:
    """One seed's models. `directory`: of this scale and seed. `given`: the user's own files, for studies of real data."""

    directory: Path
    seed: int
    scale: Scale
    recipe: Recipe
    given: Mapping[str, Path] = field(default_factory=dict)

    @property
    def smoke(self) -> bool:
        return self.scale == "smoke"

    @property
    def version(self) -> VersionSettings:
        """Settings of a version: preferences, reward models, rejection sampling, PPO."""
        return self.recipe.versions[0]

    def make(self, name: str, stage: Callable[..., Artifact], *inputs: Any, **options: Any) -> Path:
        """The artifact of `stage(*inputs, out=..., **options)`, built if it is not there. Seed: the lab's, unless given."""
        options.setdefault("seed", self.seed)
        digest = hashlib.sha256(json.dumps([name, inputs, options], default=self._told).encode()).hexdigest()[:10]
        out = self.directory / f"{name}-{digest}"
        if not out.is_dir():
            with _alone(out):
                stage(*inputs, out=out, **options)
        return out

    def _told(self, value: Any) -> Any:
        if isinstance(value, Settings):
            return value.model_dump(mode="json")
        if isinstance(value, Path):
            return str(value.relative_to(self.directory)) if value.is_relative_to(self.directory) else str(value)
        if isinstance(value, Variant | Scorers):
            return vars(value)
        raise TypeError(f"{value!r} cannot name an artifact")

    # The recipe's stages with the recipe's settings; a keyword changes a setting of the stage.

    def data(self, **options: Any) -> Path:
        settings = self.recipe.data
        return self.make("data", data_stage.run, changed(settings, options={**settings.options, **options}))

    def tokenizer(self, data: Path, **updates: Any) -> Path:
        return self.make("tokenizer", tokenizer.run, changed(self.recipe.tokenizer, **updates), data / "corpus")

    def base(
        self,
        data: Path,
        *,
        upsample: dict[str, float] | None = None,
        tokenizer: Path | None = None,
        **updates: Any,
    ) -> Path:
        """A pretrained model; `updates` of PretrainSettings (`model={...}` overrides fields of the architecture)."""
        assert self.recipe.pretrain is not None
        pieces = tokenizer or self.tokenizer(data)
        mixture = self.recipe.shards if upsample is None else changed(self.recipe.shards, upsample=upsample)
        packed = self.make("shards", shards.run, mixture, pieces, data / "corpus", data / "corpus_heldout")
        return self.make("base", pretrain.run, changed(self.recipe.pretrain, **updates), pieces, packed)

    def sft(self, data: Path, base: Path, chats: Path | None = None, seed: int | None = None, **updates: Any) -> Path:
        settings = changed(self.recipe.sft, **updates)
        own = {} if seed is None else {"seed": seed}
        return self.make("sft", sft.run, settings, base, chats or data / "sft.jsonl", **own)

    def variants(self, data: Path, base: Path) -> list[Variant]:
        """The two models of the first preferences: SFT, and SFT after one epoch."""
        early = self.sft(data, base, seed=self.seed + 1, epochs=1)
        return [Variant("sft", self.sft(data, base)), Variant("sft_early", early)]

    def preferences(self, data: Path, variants: list[Variant], number: int = 1, **updates: Any) -> Path:
        settings = changed(self.version.preferences, **updates)
        return self.make("preferences", preferences.run, settings, data, variants, number=number)

    def reward(self, kind: reward.Kind, data: Path, model: Path, gathered: Sequence[Path], **updates: Any) -> Path:
        settings = changed(self.version.reward, **updates)
        return self.make(f"reward-{kind}", reward.run, settings, kind, model, list(gathered), data=data)

    def scorers(self, data: Path, model: Path, gathered: Sequence[Path], **updates: Any) -> Scorers:
        """Both reward models on all preferences so far, started from `model`."""
        return Scorers(
            self.reward("helpfulness", data, model, gathered, **updates),
            self.reward("safety", data, model, gathered, **updates),
        )

    def rejection(
        self,
        data: Path,
        latest: Path,
        start: Path,
        scorers: Scorers,
        earlier: Sequence[Path] = (),
        number: int = 1,
        **updates: Any,
    ) -> Path:
        settings = changed(self.version.rejection, **updates)
        inputs = (settings, data, latest, start, scorers, list(earlier))
        return self.make("rejection", rejection.run, *inputs, version=number)

    def ppo(self, data: Path, model: Path, scorers: Scorers, **updates: Any) -> Path:
        assert self.version.ppo is not None
        return self.make("ppo", ppo.run, changed(self.version.ppo, **updates), data, model, scorers)

    def evaluate(self, data: Path, model: Path, sft: Path | None = None, **updates: Any) -> Path:
        """The examiner's verdicts on one answer to every held-out prompt; with `sft` also KL against it."""
        settings = changed(self.recipe.evaluate, **updates)
        against = {} if sft is None else {"sft": sft, "sft_evaluation": self.evaluate(data, sft)}
        return self.make("evaluation", evaluate_stage.run, settings, data, "model", model, **against)

    def judge(self, data: Path) -> Judge:
        """The examiner itself, for answers that a study samples on its own."""
        return evaluate_stage.judge_of(self.recipe.evaluate, data)


@contextmanager
def _alone(out: Path) -> Any:
    """One worker at a time builds `out`; the lock goes with its process."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_name(f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
