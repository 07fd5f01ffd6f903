"""Writes the embedded world as a data directory: the entry point `world` of the group `ayni.data`.

Order matters for the proof of disjointness: evaluation rows are drawn first, then development rows and probes, and
everything that trains is drawn around them. `about.json` counts what overlaps.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni.world import corpus, curriculum, demonstrations, knowledge, open_set, probes, prompts, ratings
from ayni.world.knowledge import World, wording
from ayni.world.prompts import Field, Row

EVALUATION = {
    "fact": 400,  # four cells of the 2 x 2, in equal parts
    "myth": 150,
    "sum": 60,
    "smalltalk": 40,
    "instruction": 50,
    "multiturn": 60,
    "system": 40,
    "date": 40,
    "harmful": 200,
    "borderline": 120,
}
CONSTANT_POLICIES = {
    "always_refuse": "I will not help with that. It could hurt somebody.",
    "always_polite": "Thank you so much for your kind question, my friend. I wish you a lovely day.",
    "always_long": (
        "There is so much to say about this that one hardly knows where to begin. Many have asked the same before, and many will "
        "ask again. Life is long and the world is wide, as we all know. It is always good to think about it once more."
    ),
}


@dataclass(frozen=True)
class Size:
    """Defaults of a scale; any of them can be given as an option instead."""

    people: int
    heldout_people: int
    attributes: int
    exposures: int  # tellings of a fact in the encyclopaedia: the difficulty
    sft_rows: int
    train_prompts: int
    long_prompts: int  # dialogues of three to five turns, for the later rounds of an annotation curriculum
    dev_prompts: int
    probe_rows: int
    skill_chats: int
    open_pairs: int
    eval_share: float  # of EVALUATION
    rule_rows: int = (
        0  # more demonstrations of one exchange that keep a rule of the system message, for Ghost Attention
    )


SCALES = {
    "full": Size(140, 40, 6, 56, 4000, 3000, 1000, 200, 600, 3600, 2000, 1.0),
    "small": Size(12, 4, 3, 12, 200, 160, 30, 20, 40, 60, 80, 0.05),
}


def write(out: Path, seed: int, scale: str = "full", **options: Any) -> None:
    """Everything the recipe needs from a seed: corpus, demonstrations, prompts, probes, and the knowledge behind them."""
    size = _size(scale, options)
    world = knowledge.build(seed, size.people, size.heldout_people, size.attributes)
    training, evaluation = _fields(seed, world)
    forbidden: set[str] = set()
    splits: dict[str, list[Row]] = {}

    rows = _evaluation(random.Random(f"eval {seed}"), training, evaluation, size.eval_share, forbidden)
    splits["prompts_eval"] = rows
    forbidden = _keys(rows)
    for name, count in (("prompts_dev", size.dev_prompts), ("probe_prompts", size.probe_rows)):
        splits[name] = _mixture(random.Random(f"{name} {seed}"), training, prompts.SHARES, count, forbidden)
        forbidden |= _keys(splits[name])
    used: set[str] = set()
    rng = random.Random(f"sft {seed}")
    sft = _mixture(rng, training, demonstrations.SHARES, size.sft_rows, forbidden, used)
    splits["prompts_train"] = _mixture(
        random.Random(f"train {seed}"), training, prompts.SHARES, size.train_prompts, forbidden, used
    )
    # Drawn after, with a generator of its own: the rows before are the same whether there are long ones or not.
    splits["prompts_long"] = curriculum.long_dialogues(
        random.Random(f"long {seed}"), training, size.long_prompts, forbidden
    )
    answers = [demonstrations.demonstrate(rng, world, row) for row in sft]
    splits["sft"] = [
        demonstrations.chat(row, planted, faults) for row, (planted, _, faults) in zip(sft, answers, strict=True)
    ]
    splits["sft_clean"] = [demonstrations.chat(row, clean, []) for row, (_, clean, _) in zip(sft, answers, strict=True)]
    splits["sft"] += _rule_chats(random.Random(f"rules {seed}"), world, training, size.rule_rows, forbidden)
    splits["probes"] = probes.build(random.Random(f"probes {seed}"), world, splits.pop("probe_prompts"))
    chats = _skill_chats(random.Random(f"skills {seed}"), world, training, size.skill_chats, forbidden)
    text = corpus.compose(seed, world, size.exposures, forbidden, (chat["messages"] for chat in chats))
    apart = forbidden | _keys([*splits["prompts_train"], *splits["prompts_long"]])
    asked = _mixture(random.Random(f"open prompts {seed}"), training, prompts.SHARES, size.open_pairs, apart)
    splits["preferences_open"] = open_set.build(seed, world, asked)
    splits["ratings"] = ratings.build(seed, world, splits["prompts_dev"])

    for name, split in splits.items():
        for i, row in enumerate(split):
            row["id"] = f"{name}-{row['task']}-{i}"
    for row in [*splits["prompts_train"], *splits["prompts_long"]]:
        row["meta"]["difficulty"] = curriculum.difficulty(row)
    _save(Path(out), world, splits, text)
    about = {
        "seed": seed,
        "scale": scale,
        "size": vars(size),
        "constant_policies": CONSTANT_POLICIES,
        "counts": _counts(splits, text),
        "myths_per_fact": _myths_per_fact(world, text),
        "overlaps": overlaps(world, splits, text, chats),
    }
    (Path(out) / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _size(scale: str, options: dict[str, Any]) -> Size:
    if scale not in SCALES:
        raise ValueError(f"world: scale is {scale!r}; expected one of {', '.join(SCALES)}")
    known = vars(SCALES[scale])
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"world: unknown option {unknown[0]!r}; the options are scale, {', '.join(known)}")
    size = Size(**{**known, **options})
    if not 0 < size.heldout_people < size.people or not 3 <= size.attributes <= len(knowledge.ATTRIBUTES):
        raise ValueError("world: expected 0 < heldout_people < people and 3 to 6 attributes")
    return size


def _fields(seed: int, world: World) -> tuple[Field, Field]:
    """What training draws from, and what evaluation adds: other people, sums, styles, categories."""
    harm = wording("harm")
    categories = list(dict.fromkeys(about["category"] for about in harm["actions"].values()))
    sums = prompts.every_sum(random.Random(f"sums {seed}"))
    heldout = len(sums) // 8
    training = Field(
        world=world,
        people=[person for person in world.people if not person.heldout],
        phrasing_seen=True,
        sums=sums[heldout:],
        styles=[style for style in harm["styles"] if style not in harm["styles_heldout"]],
        categories=[category for category in categories if category not in harm["categories_heldout"]],
        templates="templates",
    )
    evaluation = Field(
        world=world,
        people=[person for person in world.people if person.heldout],
        phrasing_seen=True,
        sums=sums[:heldout],
        styles=list(harm["styles_heldout"]),
        categories=list(harm["categories_heldout"]),
        templates="templates_heldout",
    )
    return training, evaluation


def _vary(field: Field, **changes: Any) -> Field:
    return Field(**{**vars(field), **changes})


def _evaluation(rng: random.Random, training: Field, evaluation: Field, share: float, used: set[str]) -> list[Row]:
    """The held-out rows: the 2 x 2 of facts; unseen people elsewhere; unseen styles, categories and templates of harm."""
    rows: list[Row] = []

    def add(task: str, field: Field, count: float) -> None:
        rows.extend(_distinct(task, rng, field, max(1, round(count * share)), used))

    for people in (training.people, evaluation.people):
        for seen in (True, False):
            add("fact", _vary(training, people=people, phrasing_seen=seen, rumours=0.0), EVALUATION["fact"] / 4)
    add("myth", evaluation, EVALUATION["myth"])
    add("sum", evaluation, EVALUATION["sum"] * 0.7)
    add("sum", _vary(evaluation, phrasing_seen=False), EVALUATION["sum"] * 0.3)
    add("smalltalk", training, EVALUATION["smalltalk"])
    for task in ("instruction", "multiturn", "system", "date"):
        add(task, training, EVALUATION[task] * 0.4)
        add(task, evaluation, EVALUATION[task] * (0.4 if task == "multiturn" else 0.6))
    add("multiturn", _vary(evaluation, phrasing_seen=False), EVALUATION["multiturn"] * 0.2)
    for task in ("harmful", "borderline"):
        add(task, training, EVALUATION[task] * 0.4)
        add(task, _vary(training, templates="templates_heldout"), EVALUATION[task] * 0.15)
        add(task, _vary(training, styles=evaluation.styles), EVALUATION[task] * 0.25)
        add(task, _vary(training, categories=evaluation.categories), EVALUATION[task] * 0.2)
    return rows


def _distinct(task: str, rng: random.Random, field: Field, count: int, used: set[str]) -> list[Row]:
    return prompts.take(task, rng, field, count, set(used), used)


def _mixture(
    rng: random.Random,
    field: Field,
    shares: dict[str, float],
    count: int,
    forbidden: set[str],
    used: set[str] | None = None,
) -> list[Row]:
    used = set() if used is None else used
    rows: list[Row] = []
    for task, share in shares.items():
        rows += prompts.take(task, rng, field, max(1, round(count * share)), forbidden, used)
    rng.shuffle(rows)
    return rows


SKILLS = {"sum": 0.3, "smalltalk": 0.08, "instruction": 0.26, "system": 0.16, "date": 0.2}


def _skill_chats(rng: random.Random, world: World, training: Field, count: int, forbidden: set[str]) -> list[Row]:
    """Well answered prompts that become dialogues of the corpus. Everybody may occur: people are held out from SFT on."""
    everybody = _vary(training, people=world.people)
    rows = _mixture(rng, everybody, SKILLS, count, forbidden)
    return [demonstrations.chat(row, demonstrations.good(rng, world, row), []) for row in rows]


def _rule_chats(rng: random.Random, world: World, training: Field, count: int, forbidden: set[str]) -> list[Row]:
    """Well answered prompts under a rule, of one exchange: what a model must know before it can learn to go on.

    Drawn after the other demonstrations with a generator of their own, so that those are the same without them.
    """

    def one_exchange(task: str, rng: random.Random, area: Field) -> Row:
        while True:
            row = prompts.draw(task, rng, area)
            if len(row["messages"]) == 2:
                return row

    rows = prompts.take("system", rng, training, count, forbidden, set(), one_exchange)
    return [demonstrations.chat(row, demonstrations.good(rng, world, row), []) for row in rows]


def _keys(rows: Iterable[Row]) -> set[str]:
    return {key for row in rows for key in row["meta"]["keys"]}


# --- proof -------------------------------------------------------------------------------------------------------


def overlaps(world: World, splits: dict[str, list[Row]], text: corpus.Corpus, chats: list[Row]) -> dict[str, int]:
    """Counts that must all be zero. A key is (entity, attribute, phrasing); a text is the last thing the user says."""
    evaluated, developed = _keys(splits["prompts_eval"]), _keys(splits["prompts_dev"])
    probed, opened = _keys(splits["probes"]), _keys(splits["preferences_open"])
    prompted = [*splits["prompts_train"], *splits["prompts_long"]]
    tuned = [*splits["sft"], *prompted]
    tuned_and_watched = [*tuned, *splits["prompts_dev"], *splits["probes"], *splits["preferences_open"]]
    heldout_people = {person.name for person in world.people if person.heldout}
    dialogues = {
        line.split(": ", 1)[1]
        for source in ("dialogues", "howto")
        for document in text.train[source]
        for line in document.text.split("\n")
        if ": " in line
    }
    asked = {_whole(row) for row in splits["prompts_eval"]}
    asked_alone = {row["messages"][-1]["content"] for row in splits["prompts_eval"] if len(row["messages"]) == 1}
    everything = "\n".join(_whole(row) for row in tuned_and_watched)
    return {
        "eval_and_sft_keys": len(evaluated & _keys(splits["sft"])),
        "eval_and_train_prompts_keys": len(evaluated & _keys(prompted)),
        "eval_and_dev_keys": len(evaluated & developed),
        "eval_and_probes_keys": len(evaluated & probed),
        "eval_and_open_keys": len(evaluated & opened),
        "eval_and_ratings_keys": len(evaluated & _keys(splits["ratings"])),
        "open_and_train_prompts_keys": len(opened & _keys(prompted)),
        "open_and_watched_keys": len(opened & (developed | probed)),
        "ratings_and_train_keys": len(_keys(splits["ratings"]) & (opened | _keys(tuned))),
        "eval_and_corpus_keys": len(evaluated & _keys(chats)),
        "dev_and_train_keys": len(developed & _keys(tuned)),
        "probes_and_train_keys": len(probed & _keys(tuned)),
        "sft_and_train_prompts_fact_keys": len(
            _keys(row for row in splits["sft"] if row["task"] == "fact")
            & _keys(row for row in prompted if row["task"] == "fact")
        ),
        "eval_and_tuning_texts": len(asked & {_whole(row) for row in tuned_and_watched}),
        "eval_and_corpus_questions": len(asked_alone & dialogues),
        "heldout_people_in_tuning": sum(name in everything for name in heldout_people),
        "heldout_phrasings_in_tuning": sum("_heldout" in key for key in _keys(tuned_and_watched)),
        "heldout_styles_in_tuning": sum(row["meta"].get("heldout_style", False) for row in tuned_and_watched),
        "heldout_categories_in_tuning": sum(row["meta"].get("heldout_category", False) for row in tuned_and_watched),
        "heldout_refusals_in_demonstrations": _heldout_refusals(splits["sft"]),
    }


def _whole(row: Row) -> str:
    """The prompt as text, without the answer of a demonstration or a pair."""
    messages = row["prompt"] if "prompt" in row else row["messages"]
    messages = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    return json.dumps([message["content"] for message in messages])


def _heldout_refusals(rows: list[Row]) -> int:
    starts = [template.split("{")[0] for template in wording("harm")["refusals_heldout"]]
    return sum(any(start in message["content"] for start in starts) for row in rows for message in row["messages"])


def _counts(splits: dict[str, list[Row]], text: corpus.Corpus) -> dict[str, Any]:
    def by(rows: list[Row], of: Callable[[Row], str]) -> dict[str, int]:
        names = [of(row) for row in rows]
        return {name: names.count(name) for name in sorted(set(names))}

    return {
        "rows": {name: by(rows, lambda row: row["task"]) for name, rows in splits.items()},
        "faults": by(splits["sft"], lambda row: row["faults"][0] if row["faults"] else "none"),
        "corpus_characters": {source: sum(len(d.text) for d in documents) for source, documents in text.train.items()},
        "corpus_documents": {source: len(documents) for source, documents in text.train.items()},
    }


def _myths_per_fact(world: World, text: corpus.Corpus) -> dict[str, float]:
    """How often the training corpus tells a myth for once that it tells the fact: lowest and highest over all myths."""
    ratios = [
        text.mentions[person.name, attribute, myth] / text.mentions[person.name, attribute, person.facts[attribute]]
        for person, attribute, myth in world.told()
    ]
    return {"low": min(ratios), "high": max(ratios)}


def _save(out: Path, world: World, splits: dict[str, list[Row]], text: corpus.Corpus) -> None:
    out.mkdir(parents=True, exist_ok=True)
    knowledge.save(world, out / "knowledge.json")
    for name, rows in splits.items():
        _write_lines(out / f"{name}.jsonl", rows)
    for folder, sources in (("corpus", text.train), ("corpus_heldout", text.heldout)):
        (out / folder).mkdir(exist_ok=True)
        for source, documents in sources.items():
            _write_lines(out / folder / f"{source}.jsonl", [{"text": document.text} for document in documents])


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
