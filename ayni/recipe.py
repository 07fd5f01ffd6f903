"""The recipe: a whole run as one YAML file, from raw text to the last version. Its mistakes are told by file, line and key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ayni.config import (
    Count,
    DataSettings,
    DistillationSettings,
    GhostSettings,
    ImportSettings,
    PPOSettings,
    PreferenceSettings,
    PretrainSettings,
    RejectionSettings,
    RewardSettings,
    Settings,
    SFTSettings,
    ShardSettings,
    TemperatureSettings,
    TokenizerSettings,
)
from ayni.config_measuring import EvaluateSettings


class RecipeGhost(GhostSettings):
    """Ghost Attention inside a recipe: `after` names the version that it is applied to (V3 in the paper).

    Later versions sample from what it made; its dialogues join what they are fine-tuned on (paper silent).
    """

    after: str


class VersionSettings(Settings):
    """One of V1..V5: fresh preferences, refreshed reward models, rejection sampling; PPO and context distillation on top.

    In a recipe a version says what differs from the one before (`inherit`). `temperature` absent or null: rejection
    sampling at `rejection.temperature`, whatever the version. `after_ppo`: rejection sampling once more, from PPO's
    policy ("applying PPO on top of the resulted Rejection Sampling checkpoint before sampling again"); settings that it
    does not give are `rejection`'s, and it fine-tunes PPO's policy (`start: latest`; paper silent).
    `distillation`: safety context distillation of the model that stands at the end, by the version's safety model (4.2.4).
    """

    name: str
    preferences: PreferenceSettings
    reward: RewardSettings
    temperature: TemperatureSettings | None = None
    rejection: RejectionSettings
    ppo: PPOSettings | None = None
    after_ppo: RejectionSettings | None = None
    distillation: DistillationSettings | None = None

    @model_validator(mode="after")
    def _after_ppo_needs_ppo(self) -> VersionSettings:
        if self.after_ppo is not None and self.ppo is None:
            raise ValueError(
                f"version {self.name}: after_ppo samples from PPO's policy; give ppo too, or after_ppo: null"
            )
        return self


def inherit(versions: list[Any]) -> list[Any]:
    """Each version's settings over those of the version before, key by key: `rejection: {k: 16}` changes K alone.

    null drops a part (`ppo: null`); lists are replaced whole; `name` is never inherited.
    """
    merged: list[Any] = []
    for version in versions:
        if not isinstance(version, dict) or (merged and not isinstance(merged[-1], dict)):
            merged.append(version)  # not a recipe's mapping: for pydantic to judge
            continue
        before = {key: value for key, value in merged[-1].items() if key != "name"} if merged else {}
        merged.append(_over(before, version))
    return [_sampling_after_ppo(version) for version in merged]


def _over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


def _sampling_after_ppo(version: Any) -> Any:
    if not isinstance(version, dict) or not isinstance(version.get("after_ppo"), dict):
        return version
    rejection = version.get("rejection")
    own = {"start": "latest", "sampler": None, **version["after_ppo"]}
    return {**version, "after_ppo": _over(rejection, own) if isinstance(rejection, dict) else own}


class Recipe(Settings):
    """A whole run. `fetch` starts from a real checkpoint and skips tokenizer, shards and pretraining."""

    name: str
    seed: int = 0
    threads: Count | None = None  # None: PyTorch's own choice; results are equal for equal thread counts
    data: DataSettings
    fetch: ImportSettings | None = None
    tokenizer: TokenizerSettings = TokenizerSettings()
    shards: ShardSettings = ShardSettings()
    pretrain: PretrainSettings | None = None
    sft: SFTSettings = SFTSettings()
    clean_control: bool = False  # also SFT on demonstrations already cleaned of faults, if the data has them
    guard: RewardSettings | None = None  # a reward model on open preferences alone, against drift (paper 3.4.1)
    versions: list[VersionSettings] = Field(default=[])
    ghost: RecipeGhost | None = None  # Ghost Attention (paper 3.3)
    evaluate: EvaluateSettings = EvaluateSettings()

    @field_validator("versions", mode="before")
    @classmethod
    def _inherited(cls, versions: Any) -> Any:
        return inherit(versions) if isinstance(versions, list) else versions

    @model_validator(mode="after")
    def _one_start(self) -> Recipe:
        if (self.fetch is None) == (self.pretrain is None):
            raise ValueError("a recipe starts either from scratch (`pretrain:`) or from a checkpoint (`fetch:`): give exactly one")  # fmt: skip
        names = [version.name for version in self.versions]
        if len(set(names)) != len(names) or {"base", "sft"} & set(names):
            raise ValueError(f"version names must differ from each other and from base and sft, got {names}")
        if self.ghost is not None and self.ghost.after not in names:
            raise ValueError(
                f"ghost: after is {self.ghost.after!r}; expected a version: {', '.join(names) or 'there is none'}"
            )
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
        told: dict[Any, Any] = {}  # a mistake in V1 that V2 inherits is one mistake, told where it stands first
        for mistake in error.errors():
            told.setdefault((mistake["type"], *(key for key in mistake["loc"] if isinstance(key, str))), mistake)
        mistakes = list(told.values())
        raise ValueError("\n".join(_explain(path, root, mistake) for mistake in mistakes[:5])) from None


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
