"""Stage: does an instruction of the first turn hold to the last (paper 3.3, Table 30)? Asked turn by turn, by program.

Each model carries the same dialogues on alone: the same instructions and questions, its own answers. `kept` of a turn is
the share of dialogues whose answer at that turn keeps the instruction, whatever became of the turns before. Three groups:
constraints that Ghost Attention trains, constraints that it never does, and trained ones in shortened wording. The model
before is asked once more with the instruction in front of every turn: what it can do where nothing needs to be remembered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config import GhostSettings
from ayni.engine.answers import row_seed, sample_answers
from ayni.engine.attention import attention_on
from ayni.engine.engine import Engine
from ayni.evals.statistics import share
from ayni.model.checkpoint import load_model
from ayni.model.transformer import Transformer
from ayni.scoring.constraints import BANKS, Constraint, draw, kept, load_banks, worded
from ayni.text.dialogue import encode_chat
from ayni.text.instructed import Exchange, in_first_turn, instruction_span, prompt_within
from ayni.text.prompts import questions, scripts
from ayni.text.sources import write_jsonl
from ayni.text.tokenizer import Tokenizer, load_tokenizer

TURNS = "turns.json"
DIALOGUES = "dialogues.jsonl"
ATTENTION = "attention.json"
QUESTIONS = "prompts_eval.jsonl"
GROUPS = ("trained", "never trained", "shortened")
BEFORE, REPEATED, AFTER = "before", "before, in every turn", "after"
PAPER = {BEFORE: {2: 1.0, 4: 0.1, 6: 0.0, 20: 0.0}, AFTER: {2: 1.0, 4: 1.0, 6: 1.0, 20: 1.0}}  # Table 30, by turn


@dataclass
class Asked:
    """A dialogue under evaluation."""

    id: str
    group: str
    constraints: tuple[Constraint, ...]
    instruction: str
    questions: list[str]
    exchanges: list[Exchange] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)  # turn by turn
    left_out: list[int] = field(default_factory=list)  # exchanges that the context had no room for, turn by turn


def run(settings: GhostSettings, prompts: Path, before: Path, after: Path, out: Path, *, seed: int) -> Artifact:
    """Writes turns.json ({"arms": {arm: {group: [share of turn 1, 2, ...]}}}), dialogues.jsonl and attention.json.

    `prompts`: a file of prompts, or a data directory with prompts_eval.jsonl. Constraints without a check are not asked.
    """

    def work_in(work: Path) -> None:
        bank = load_banks(settings.bank)
        pool = scripts(prompts, QUESTIONS, settings.tasks)
        arms: dict[str, list[Asked]] = {}
        rounds = [(BEFORE, before, False), (REPEATED, before, True), (AFTER, after, False)]
        total = sum(len(plan(settings, bank, pool, seed)) for _ in rounds) * settings.evaluate.turns
        if not total:
            raise ValueError(
                f"{', '.join(settings.bank)}: no constraint has a check, so no program can tell what is kept"
            )
        with telemetry.progress("turn by turn", total, "answers") as bar:
            for arm, model, every in rounds:
                arms[arm] = plan(settings, bank, pool, seed)
                carry_on(
                    load_model(model, settings.precision), load_tokenizer(model), arms[arm], settings, every, seed, bar
                )
        write_json(work / TURNS, figures(settings, bank, arms))
        write_jsonl(work / DIALOGUES, (row_of(arm, asked, settings) for arm, of in arms.items() for asked in of))
        looked = [asked for asked in arms[AFTER] if asked.group != "shortened"]
        step = max(1, len(looked) // settings.evaluate.pictured)
        chosen = looked[::step][: settings.evaluate.pictured]
        found = {
            arm: attention_by_turn(load_model(path), load_tokenizer(path), chosen, settings)
            for arm, path in ((BEFORE, before), (AFTER, after))
        }
        write_json(work / ATTENTION, {"turns": list(range(1, settings.evaluate.turns + 1)), "arms": found})
        _show(settings, arms)

    inputs: dict[str, Path | None] = {"prompts": prompts, "before": before, "after": after}
    inputs |= {f"bank {name}": Path(name) for name in settings.bank if name not in BANKS}
    asked = settings.model_dump(include={"bank", "where", "tasks", "evaluate", "precision"})
    return build(out, "ghost_turns", asked, inputs, seed, work_in)


def plan(settings: GhostSettings, bank: Sequence[Constraint], pool: Sequence[list[str]], seed: int) -> list[Asked]:
    """The dialogues of every group, equal for every arm; a group is left out if it has no constraint with a check."""
    asked = []
    for group in GROUPS:
        rng = random.Random(row_seed(seed, f"ghost turns {group}"))
        known = [c for c in bank if c.checks and c.held_out == (group == "never trained")]
        for number in range(settings.evaluate.dialogues if known else 0):
            constraints = draw(known, rng)
            instruction = worded(constraints, rng, short=group == "shortened")
            said = questions(pool, settings.evaluate.turns, rng)
            asked.append(Asked(f"{group} {number}", group, constraints, instruction, said))
    return asked


def carry_on(
    model: Transformer,
    tokenizer: Tokenizer,
    dialogues: Sequence[Asked],
    settings: GhostSettings,
    every: bool,
    seed: int,
    bar: telemetry.ProgressBar | None = None,
) -> None:
    """Answers all turns of all dialogues, side by side. What the context has no room for is cut from the second turn on."""
    engine, how = Engine(model, tokenizer), settings.evaluate
    for turn in range(how.turns):
        within = [
            prompt_within(
                tokenizer,
                asked.instruction,
                settings.where,
                asked.exchanges,
                asked.questions[turn],
                engine.max_len - how.max_new_tokens,
                every,
            )
            for asked in dialogues
        ]
        answers = sample_answers(
            engine,
            tokenizer,
            [{"id": f"{asked.id} {turn}"} for asked in dialogues],
            prompts=[prompt for prompt, _ in within],
            temperature=how.temperature,
            max_new_tokens=how.max_new_tokens,
            seed=row_seed(seed, "ghost turns"),
            bar=bar,
        )
        for asked, (_, left_out), [answer] in zip(dialogues, within, answers):
            asked.exchanges.append((asked.questions[turn], answer.text))
            asked.kept.append(kept(asked.constraints, answer.text) is True)
            asked.left_out.append(left_out)


def figures(settings: GhostSettings, bank: Sequence[Constraint], arms: dict[str, list[Asked]]) -> dict[str, Any]:
    """turns.json: shares with their intervals, how often the context was too short, and what could not be asked."""
    turns = range(settings.evaluate.turns)
    return {
        "turns": [turn + 1 for turn in turns],
        "where": settings.where,
        "arms": {
            arm: {
                group: [share([asked.kept[turn] for asked in dialogues if asked.group == group]) for turn in turns]
                for group in GROUPS
                if any(asked.group == group for asked in dialogues)
            }
            for arm, dialogues in arms.items()
        },
        "cut": {
            arm: [sum(asked.left_out[turn] > 0 for asked in dialogues) / len(dialogues) for turn in turns]
            for arm, dialogues in arms.items()
        },
        "paper": {arm: [[turn, value] for turn, value in points.items()] for arm, points in PAPER.items()},
        "without_check": [constraint.name for constraint in bank if not constraint.checks],
    }


def row_of(arm: str, asked: Asked, settings: GhostSettings) -> dict[str, Any]:
    return {
        "id": asked.id,
        "arm": arm,
        "group": asked.group,
        "constraints": [constraint.name for constraint in asked.constraints],
        "kept": asked.kept,
        "left_out": asked.left_out,
        "messages": in_first_turn(asked.instruction, settings.where, asked.exchanges),
    }


def attention_by_turn(
    model: Transformer, tokenizer: Tokenizer, dialogues: Sequence[Asked], settings: GhostSettings
) -> dict[str, Any]:
    """Attention from each turn's answer to the instruction, over dialogues: mean of all heads, and the strongest head's.

    Every model reads the same dialogues (the model's after Ghost Attention), as far as they fit the context; `n` counts
    the dialogues that a turn's figure is of.
    """
    turns = settings.evaluate.turns
    mean: list[list[float]] = [[] for _ in range(turns)]
    strongest: list[list[float]] = [[] for _ in range(turns)]
    for asked in dialogues:
        ids, answers = fitting(tokenizer, asked, settings, model.settings.max_seq_len)
        if not answers:
            continue
        keys = instruction_span(tokenizer, asked.instruction, settings.where, asked.exchanges[0][0])
        on_LHN = attention_on(model, ids, keys, answers)
        for turn in range(len(answers)):
            mean[turn].append(on_LHN[:, :, turn].mean().item())
            strongest[turn].append(on_LHN[:, :, turn].max().item())
    average = lambda of: [sum(found) / len(found) if found else None for found in of]  # noqa: E731
    return {"mean": average(mean), "strongest": average(strongest), "n": [len(found) for found in mean]}


def fitting(tokenizer: Tokenizer, asked: Asked, settings: GhostSettings, room: int) -> tuple[list[int], list[slice]]:
    """Ids of as many turns as `room` holds, and where their answers lie; an empty answer ends it (nothing is asked there)."""
    count = next((i for i, (_, answer) in enumerate(asked.exchanges) if not answer), len(asked.exchanges))
    while count:
        messages = in_first_turn(asked.instruction, settings.where, asked.exchanges[:count])
        ids, mask = encode_chat(tokenizer, messages)
        if len(ids) <= room:
            return ids, runs_of(mask)
        count -= 1
    return [], []


def runs_of(mask: Sequence[bool]) -> list[slice]:
    """The stretches of True."""
    edges = torch.tensor([False, *mask, False]).int().diff()
    return [slice(int(a), int(b)) for a, b in zip((edges == 1).nonzero(), (edges == -1).nonzero())]


def _show(settings: GhostSettings, arms: dict[str, list[Asked]]) -> None:
    """A row an arm and group, a column every other turn."""
    turns = [
        turn
        for turn in range(2, settings.evaluate.turns + 1)
        if turn in (2, 4, 6, 10, 15) or turn == settings.evaluate.turns
    ]
    rows = [
        [arm, group, *(f"{100 * sum(asked.kept[turn - 1] for asked in of) / len(of):.0f}" for turn in turns)]
        for arm, dialogues in arms.items()
        for group in GROUPS
        if (of := [asked for asked in dialogues if asked.group == group])
    ]
    telemetry.table(["% of turns that keep it", "constraints", *(f"turn {turn}" for turn in turns)], rows)
