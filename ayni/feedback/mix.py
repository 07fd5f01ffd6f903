"""Which preferences a reward model trains on (paper 3.2.2), and which are held out.

A row is *open* where its source is `open` or `open:NAME`: a pair that neither our annotators judged nor our models
answered, as the paper's public sets. All others are our own. Each model has its own part of the rows:

    helpfulness   our helpful pairs
    safety        our safety pairs
    guard         the open pairs of both kinds: kept out of tuning, as a guard against drift (paper 3.4.1)
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ayni import telemetry
from ayni.config import RewardSettings
from ayni.text.sources import read_preferences

Kind = Literal["helpfulness", "safety", "guard"]
DOMAIN = {"helpfulness": "helpful", "safety": "safety"}  # the prompt_kind of a model's own preferences
OPEN = "open"
HELD_OUT = 0.1  # of files that come without a held-out part
Row = dict[str, Any]


def is_open(row: Row) -> bool:
    return str(row.get("source") or "").split(":")[0] == OPEN


def is_own(row: Row, kind: Kind) -> bool:
    """Whether a row belongs to the part that this model is for."""
    if kind == "guard":
        return is_open(row)
    return not is_open(row) and row["prompt_kind"] == DOMAIN[kind]


def mix(rows: list[Row], kind: Kind, settings: RewardSettings, rng: random.Random) -> list[Row]:
    """The training rows under `settings.mix`.

    paper, helpfulness: all own helpfulness + up to `helpfulness_exchange` times as many of the rest, drawn uniformly
        from own safety and open rows.
    paper, safety: all own safety + open safety (the paper's harmless set), with helpfulness, own and open, as
        `safety_exchange` of the whole (90/10).
    own: the model's own rows alone.   both: every row alike, for one model that serves both ends.
    The guard has nothing but open rows under any mix. `settings.pairs` bounds the own rows (both: all rows).
    """
    everything = settings.mix == "both" and kind != "guard"
    own = [row for row in rows if everything or is_own(row, kind)]
    if settings.pairs is not None and settings.pairs < len(own):
        own = rng.sample(own, settings.pairs)
    if kind == "guard" or settings.mix != "paper":
        return own
    rest = [row for row in rows if not is_own(row, kind)]
    if kind == "helpfulness":
        wanted = settings.helpfulness_exchange * len(own)
    else:
        own = own + [row for row in rest if row["prompt_kind"] == DOMAIN[kind]]
        rest = [row for row in rest if row["prompt_kind"] != DOMAIN[kind]]
        wanted = settings.safety_exchange / (1 - settings.safety_exchange) * len(own)
    return own + rng.sample(rest, min(len(rest), round(wanted)))


def gather(
    preferences: Sequence[Path], open_preferences: Sequence[Path], kind: Kind, rng: random.Random
) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows) of all rounds and of the open files.

    `preferences`: artifacts of the preference stage (train.jsonl, held_out.jsonl), or plain files, of which a tenth is
    held out. A plain file that never names this model's part is taken to be all its own. What one file holds out no other
    file trains on: pairs with such a prompt are left out, and counted.
    """
    train: list[Row] = []
    of_files: list[Row] = []
    held_out: list[Row] = []
    for path in preferences:
        kept, out = read_split(path, rng)
        if is_round(path):
            train, held_out = train + kept, held_out + out
            continue
        if not any(is_own(row, kind) for row in kept + out):
            key, value = ("source", OPEN) if kind == "guard" else ("prompt_kind", DOMAIN[kind])
            kept, out = ([{**row, key: value} for row in rows] for rows in (kept, out))
            telemetry.say(f"  {path}: no row says {key} {value!r}, so all are taken as such")
        of_files, held_out = of_files + kept, held_out + out
    for path in open_preferences:
        kept, out = split_open(read_open(path))
        of_files, held_out = of_files + kept, held_out + out
    tested = {_prompt(row) for row in held_out}
    apart = [row for row in of_files if _prompt(row) not in tested]
    if len(apart) < len(of_files):
        telemetry.say(f"  {len(of_files) - len(apart)} pairs left out: another file holds their prompt out")
    train += apart
    if not any(is_own(row, kind) for row in train):
        part = f"source {OPEN!r}" if kind == "guard" else f"prompt_kind {DOMAIN[kind]!r}"
        where = ", ".join(map(str, [*preferences, *open_preferences])) or "no file given"
        raise ValueError(
            f"{where}: no preference with {part} left to train the {kind} model on (a tenth is held out); give more"
        )
    return train, held_out


def is_round(path: Path) -> bool:
    """Whether this is an artifact of the preference stage, which says itself what is held out."""
    return (path / "train.jsonl").is_file()


def read_split(path: Path, rng: random.Random) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows) of a round of preferences, or of a plain file, a tenth of whose prompts is held out."""
    if is_round(path):
        return read_preferences(path / "train.jsonl"), read_preferences(path / "held_out.jsonl")
    return split_by_prompt(read_preferences(path), rng)


def read_open(path: Path) -> list[Row]:
    """The rows of a file of open preferences, whatever they call their source."""
    return [row if is_open(row) else {**row, "source": f"{OPEN}:{row['source']}"} for row in read_preferences(path)]


def split_open(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """(training, held-out) open rows: the same split for every model, round and seed, so that none has seen another's test."""
    return split_by_prompt(rows, random.Random(OPEN))


def split_by_prompt(rows: list[Row], rng: random.Random) -> tuple[list[Row], list[Row]]:
    """(training, held-out): prompts drawn at random, with all their pairs, until a tenth of the rows is held out."""
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(_prompt(row), []).append(row)
    groups = list(by_prompt.values())
    rng.shuffle(groups)
    held_out: list[Row] = []
    while groups and len(held_out) < max(1, HELD_OUT * len(rows)):
        held_out += groups.pop()
    return [row for group in groups for row in group], held_out


def _prompt(row: Row) -> str:
    return json.dumps([[turn["role"], turn["content"].strip()] for turn in row["prompt"]])
