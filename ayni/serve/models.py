"""The models that a server answers with: found, loaded once, known by an id."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from ayni import __version__, telemetry
from ayni.artifacts import read_json
from ayni.config import ServedType
from ayni.engine.engine import Engine
from ayni.model.checkpoint import check_vocabulary, load_model
from ayni.scoring.reward import RewardModel, load_reward_model
from ayni.serve.errors import APIError
from ayni.serve.vocabulary import Vocabulary
from ayni.text.tokenizer import Tokenizer, load_tokenizer

CHARACTERS_PER_TOKEN = 128  # no text comes near that


def find_model(path: Path) -> Path:
    """A model directory as it is, or the latest model of a run directory."""
    if (path / "config.json").is_file():
        return path
    if (path / "results.json").is_file():
        return path / read_json(path / "results.json")["latest"]
    raise ValueError(f"{path}: neither a model directory (config.json) nor a finished run (results.json)")


@dataclass(frozen=True)
class Served:
    """What both kinds of model have in common."""

    kind: ClassVar[Literal["language", "reward"]]
    id: str
    path: Path
    tokenizer: Tokenizer
    max_len: int  # tokens, the answer included
    created: int = field(default_factory=lambda: int(time.time()))

    def refuse_endless(self, *texts: str) -> None:
        """Tokenising takes its time: what no context could hold is refused before."""
        for text in texts:
            if len(text) > self.max_len * CHARACTERS_PER_TOKEN:
                message = f"a text of {len(text):,} characters, and this model's context holds {self.max_len:,} tokens"
                raise APIError(400, message, code="context_length_exceeded")

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the software and with the model's files: equal seeds promise equal answers under one fingerprint."""
        files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self.path.iterdir())
        return "fp_" + hashlib.sha256(f"{__version__} {files}".encode()).hexdigest()[:12]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer)

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        return json.loads(self.tokenizer.files.get("tokenizer_config.json", b"{}"))


@dataclass(frozen=True)
class LanguageModel(Served):
    kind: ClassVar[Literal["language", "reward"]] = "language"
    engine: Engine = field(kw_only=True)


@dataclass(frozen=True)
class ServedReward(Served):
    kind: ClassVar[Literal["language", "reward"]] = "reward"
    model: RewardModel = field(kw_only=True)


M = TypeVar("M", bound=Served)


@dataclass(frozen=True)
class Catalogue:
    language: list[LanguageModel]
    rewards: list[ServedReward]

    @property
    def all(self) -> list[Served]:
        return [*self.language, *self.rewards]

    def language_model(self, name: str | None) -> LanguageModel:
        return _named(self.language, name, "language")

    def reward_model(self, name: str | None) -> ServedReward:
        return _named(self.rewards, name, "reward")

    def any_model(self, name: str | None) -> Served:
        return _named(self.all, name, "")


def _named(models: Sequence[M], name: str | None, kind: str) -> M:
    for model in models:
        if name is None or model.id == name:
            return model
    known = ", ".join(model.id for model in models) or "none; start the server with one"
    asked = f"{name[:100]!r} is not" if name is not None else "there is no"
    message = f"model: {asked} a {kind} model of this server; known: {known}".replace("a  model", "a model")
    raise APIError(404, message, "model", "model_not_found")


def load_models(
    models: Sequence[Path],
    rewards: Sequence[Path],
    max_rows: int,
    max_len: int | None,
    device: str,
    dtype: ServedType = "float32",
) -> Catalogue:
    """Everything in memory, language models in `dtype`; ValueError if a directory is not what it should be."""
    paths = [find_model(path) for path in models]
    reward_paths = [find_model(path) for path in rewards]
    ids = _ids([*paths, *reward_paths])
    with telemetry.progress("loading", len(ids), "models") as bar:
        language = []
        for path, name in zip(paths, ids):
            language.append(_language_model(path, name, max_rows, max_len, device, dtype))
            bar.advance()
        scored = []
        for path, name in zip(reward_paths, ids[len(paths) :]):
            scored.append(_reward_model(path, name, device))
            bar.advance()
    catalogue = Catalogue(language, scored)
    for model in catalogue.all:
        assert model.fingerprint  # of the files that were loaded, whatever becomes of them
    return catalogue


def open_engine(
    path: Path,
    tokenizer: Tokenizer,
    dtype: ServedType,
    max_rows: int = 1,
    max_len: int | None = None,
    device: str = "cpu",
) -> Engine:
    """The model in the type asked for, ready to answer; ValueError if model and tokenizer do not belong together."""
    model = load_model(path, "bfloat16" if dtype == "int8" else dtype).to(device).eval()
    check_vocabulary(model.settings, tokenizer, str(path))
    return Engine(model, tokenizer, max_rows, max_len, int8=dtype == "int8")


def _language_model(
    path: Path, name: str, max_rows: int, max_len: int | None, device: str, dtype: ServedType
) -> LanguageModel:
    tokenizer = load_tokenizer(path)
    engine = open_engine(path, tokenizer, dtype, max_rows, max_len, device)
    return LanguageModel(name, path, tokenizer, engine.max_len, engine=engine)


def _reward_model(path: Path, name: str, device: str) -> ServedReward:
    tokenizer, model = load_tokenizer(path), load_reward_model(path)
    for part in (model.head, model.chat_model):
        if part is not None:
            part.to(device).eval()
    settings = model.head.settings
    check_vocabulary(settings, tokenizer, str(path))
    return ServedReward(name, path, tokenizer, settings.max_seq_len, model=model)


def _ids(paths: Sequence[Path]) -> list[str]:
    """Directory names; where two are alike, the run's name goes in front, and a number behind if that is not enough."""
    resolved = [path.resolve() for path in paths]
    names = [path.name for path in resolved]
    longer = [f"{path.parent.name}-{path.name}" if names.count(path.name) > 1 else path.name for path in resolved]
    return [
        name if longer.index(name) == i else f"{name}-{longer[:i].count(name) + 1}" for i, name in enumerate(longer)
    ]
