"""A bank as settings ask for it, and which of its objectives never train: across seeds, evaluations and red-team rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.config_measuring import AttackSettings
from ayni.evals.attack_sources import grouped, kept_out, with_sources
from ayni.text.attack_bank import Bank, load_bank, with_styles
from ayni.text.attacks import HeldOut, hold_out
from ayni.text.sources import read_prompts


def open_bank(settings: AttackSettings, cache: str | None = None) -> Bank:
    """The bank with its sources, cut to the styles and categories that are asked for; near duplicates share a group."""
    bank = with_styles(Bank()) if settings.bank == "none" else load_bank(settings.bank)
    bank = with_sources(bank, settings.sources, cache) if settings.sources else grouped(bank)
    categories = sorted({objective.category for objective in bank.objectives})
    for kind, wanted, known in (("style", settings.styles, bank.styles), ("category", settings.categories, categories)):
        if unknown := [name for name in wanted if name not in known]:
            raise ValueError(f"no {kind} is called {unknown[0]!r}; known: {', '.join(known) or 'none'}")
    if not bank.objectives:
        raise ValueError("there is nothing to attack with: name a bank with objectives, or a source")
    return bank.model_copy(
        update={
            "styles": {k: v for k, v in bank.styles.items() if k in settings.styles or not settings.styles},
            "objectives": [o for o in bank.objectives if o.category in settings.categories or not settings.categories],
        }
    )


def held_out(
    settings: AttackSettings, bank: Bank, seed: int, earlier: Sequence[tuple[set[str], set[str]]] = ()
) -> HeldOut:
    """What never trains. `earlier`: (held out, not held out) objectives of earlier rounds, which keep their side; an
    objective that some round held out and another did not is held out from here on, and said so.
    """
    held = hold_out(
        bank,
        seed,
        objectives=settings.held_out_objectives,
        styles=settings.held_out_styles,
        categories=settings.held_out_categories,
    )
    group = {objective.id: objective.group or objective.id for objective in bank.objectives}
    out = set().union(*(before for before, _ in earlier))
    trained = set().union(*(after for _, after in earlier))
    if both := out & trained:
        telemetry.say(
            f"  {len(both)} objectives were held out in one earlier round and not in another; held out from now on"
        )
    keep = kept_out(bank, read_prompts(settings.keep_out)) if settings.keep_out else set()
    may_train = {group.get(name, name) for name in trained}
    must_not = {group.get(name, name) for name in out | keep}
    by_category = {o.id for o in bank.objectives if o.category in held.categories}
    ids = {
        name
        for name, of in group.items()
        if of in must_not or name in by_category or (name in held.objectives and of not in may_train)
    }
    return HeldOut(frozenset(ids | out), held.styles, held.categories)


def inputs(settings: AttackSettings) -> dict[str, Path | None]:
    """The files behind the settings, for an artifact's fingerprint."""
    files: dict[str, Path | None] = {"keep_out": settings.keep_out}
    if Path(settings.bank).is_file():
        files["bank"] = Path(settings.bank)
    files |= {name: Path(name.removeprefix("file:")) for name in settings.sources if name.startswith("file:")}
    return files


def sides(bank: Bank, held: HeldOut) -> dict[str, Any]:
    """As `split.json` keeps it."""
    ids = {objective.id for objective in bank.objectives}
    return {
        "held_out": sorted(held.objectives),
        "not_held_out": sorted(ids - held.objectives),
        "styles": sorted(held.styles),
        "categories": sorted(held.categories),
    }
