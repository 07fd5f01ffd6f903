"""Stage: Ghost Attention (paper 3.3), for instructions that must hold for a whole dialogue; applied after V3 there.

    sample   a_t ~ pi_latest(. | [x; u_1] a_1 ... [x; u_t])    the instruction x in front of every user turn
    train    -1/|a_T| log pi(a_T | [x; u_1] a_1 u_2 ... u_T)   x in the first turn alone, in shortened wording for half of
                                                               the dialogues; no loss on anything but the last answer

The latest model both samples and is trained. An answer goes on if it ended and keeps x, as far as a program can tell
(`check`); a turn without such an answer ends its dialogue, and what came before is trained on if it has two turns.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config import GhostSettings
from ayni.engine.answers import row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.model.checkpoint import check_vocabulary, load_model
from ayni.scoring.constraints import BANKS, Constraint, draw, kept, load_banks, worded
from ayni.telemetry import ProgressBar
from ayni.text.instructed import Exchange, in_every_turn, in_first_turn, training_sample
from ayni.text.prompts import questions, scripts
from ayni.text.sources import write_jsonl
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.fitting import fine_tune
from ayni.train.mesh import open_mesh

SAMPLES = "samples.jsonl"
SUMMARY = "summary.json"
QUESTIONS = "prompts_train.jsonl"


@dataclass
class Dialogue:
    """A dialogue to be sampled: what is asked, under which instruction, and what has been answered so far."""

    id: str
    constraints: tuple[Constraint, ...]
    instruction: str  # the wording that it is sampled with
    shown: str  # the wording that training shows: the same, or shortened
    questions: list[str]
    exchanges: list[Exchange] = field(default_factory=list)
    end: str = "whole"  # or why it is shorter than planned: broken, context


def run(settings: GhostSettings, prompts: Path, model: Path, out: Path, *, seed: int, device: str = "cpu") -> Artifact:
    """Samples dialogues from `model` and fine-tunes it on their last answers.

    `prompts`: a file of prompts, or a data directory with prompts_train.jsonl; their users' turns are what is asked.
    Writes a model, samples.jsonl (the dialogues, as ids and messages) and summary.json. ValueError if no dialogue of two
    turns is left.
    """
    mesh = open_mesh(device)

    def work_in(work: Path) -> None:
        bank = trained(load_banks(settings.bank))
        pool = scripts(prompts, QUESTIONS, settings.tasks)
        tokenizer, policy = load_tokenizer(model), load_model(model)
        check_vocabulary(policy.settings, tokenizer, str(model))
        dialogues = plan(settings, bank, pool, random.Random(row_seed(seed, "ghost")))
        engine = Engine(load_model(model, settings.precision), tokenizer)
        with telemetry.progress("dialogues", sum(len(d.questions) for d in dialogues), "turns") as bar:
            sample(engine, tokenizer, dialogues, settings, seed, bar)
        rows = [row for dialogue in dialogues if (row := training_row(tokenizer, dialogue, settings)) is not None]
        summary = summary_of(dialogues, rows)
        telemetry.say(
            f"  {len(rows)} of {len(dialogues)} dialogues, {summary['mean_turns']:.1f} turns each; "
            f"{summary['broken']} ended by a broken instruction, {summary['context']} by the context"
        )
        if not rows:
            raise ValueError(
                f"{model}: no sampled dialogue keeps its instruction for two turns, so there is nothing to train on. A model "
                "must follow the bank's instructions at once before it can learn to go on: fine-tune it on some "
                "demonstrations, choose another bank, or keep all answers (check: false)"
            )
        if mesh.is_main:
            write_jsonl(work / SAMPLES, rows)
            write_json(work / SUMMARY, summary)
        samples = [masked(row) for row in rows]
        fine_tune(
            work, "Ghost Attention", policy, tokenizer, samples, settings, epochs=settings.epochs, mesh=mesh, seed=seed
        )

    inputs: dict[str, Path | None] = {"prompts": prompts, "model": model}
    inputs |= {f"bank {name}": Path(name) for name in settings.bank if name not in BANKS}
    return build(out, "ghost", settings.model_dump(exclude={"evaluate"}), inputs, seed, work_in)


def trained(bank: Sequence[Constraint]) -> list[Constraint]:
    """Those that Ghost Attention may train; ValueError if there are none."""
    found = [constraint for constraint in bank if not constraint.held_out]
    if not found:
        raise ValueError("the bank holds out all of its constraints, so there is nothing to train")
    return found


def plan(
    settings: GhostSettings, bank: Sequence[Constraint], pool: Sequence[list[str]], rng: random.Random
) -> list[Dialogue]:
    """Dialogues of min_turns to max_turns questions, each under a constraint or two."""
    dialogues = []
    for number in range(settings.dialogues):
        constraints = draw(bank, rng, combined=rng.random() < settings.combined)
        instruction = worded(constraints, rng)
        shown = worded(constraints, rng, short=True) if rng.random() < settings.short else instruction
        asked = questions(pool, rng.randint(settings.min_turns, settings.max_turns), rng)
        dialogues.append(Dialogue(f"ghost-{number}", constraints, instruction, shown, asked))
    return dialogues


def sample(
    engine: Engine,
    tokenizer: Tokenizer,
    dialogues: Sequence[Dialogue],
    settings: GhostSettings,
    seed: int,
    bar: ProgressBar | None = None,
) -> None:
    """Answers all dialogues turn by turn, side by side, until each is whole or ends early; fills `exchanges` and `end`."""
    live = list(dialogues)
    while live:
        asked: list[tuple[Dialogue, list[int]]] = []
        for dialogue in live:
            turn = len(dialogue.exchanges)
            seen = turn if settings.history is None else min(turn, settings.history)
            before, question = dialogue.exchanges[turn - seen :], dialogue.questions[turn]
            prompt = in_every_turn(tokenizer, dialogue.instruction, settings.where, before, question)
            if len(prompt) + settings.max_new_tokens <= engine.max_len:
                asked.append((dialogue, prompt))
            else:
                dialogue.end = "context"
        answers = sample_answers(
            engine,
            tokenizer,
            [{"id": f"{dialogue.id} {len(dialogue.exchanges)}"} for dialogue, _ in asked],
            prompts=[prompt for _, prompt in asked],
            n=settings.tries,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=row_seed(seed, "ghost answers"),
        )
        for (dialogue, _), tries in zip(asked, answers):
            texts = [answer.text for answer in tries if answer.ended and answer.text]
            if settings.check:
                texts = [text for text in texts if kept(dialogue.constraints, text) is not False]
            if texts:
                dialogue.exchanges.append((dialogue.questions[len(dialogue.exchanges)], texts[0]))
            else:
                dialogue.end = "broken"
        if bar is not None:
            bar.advance(len(asked))
        live = [d for d in live if d.end == "whole" and len(d.exchanges) < len(d.questions)]


def training_row(tokenizer: Tokenizer, dialogue: Dialogue, settings: GhostSettings) -> dict[str, Any] | None:
    """The dialogue with its instruction in the first turn alone, as `prompt_ids` and `answer_ids`; None if too short."""
    ids, mask, turns = training_sample(tokenizer, dialogue.shown, settings.where, dialogue.exchanges, settings.row_len)
    if not turns:
        return None
    return {
        "id": dialogue.id,
        "constraints": [constraint.name for constraint in dialogue.constraints],
        "sampled_with": dialogue.instruction,
        "turns": turns,
        "messages": in_first_turn(dialogue.shown, settings.where, dialogue.exchanges[:turns]),
        "prompt_ids": ids[: mask.index(True)],
        "answer_ids": ids[mask.index(True) :],
    }


def masked(row: dict[str, Any]) -> tuple[list[int], list[bool]]:
    """(ids, loss mask) of a row of samples.jsonl: loss on the last answer's tokens and on no other."""
    before, answer = row["prompt_ids"], row["answer_ids"]
    return before + answer, [False] * len(before) + [True] * len(answer)


def summary_of(dialogues: Sequence[Dialogue], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts: dialogues sampled and trained on, why others ended early, turns, and what was kept of each kind."""
    ends = Counter(dialogue.end for dialogue in dialogues)
    answered = {dialogue.id: len(dialogue.exchanges) for dialogue in dialogues}
    kinds = Counter("combined" if len(row["constraints"]) > 1 else row["constraints"][0].split(":")[0] for row in rows)
    return {
        "sampled": len(dialogues),
        "dialogues": len(rows),
        "broken": ends["broken"],
        "context": ends["context"],
        "cut_to_row": sum(row["turns"] < answered[row["id"]] for row in rows),
        "mean_turns": sum(row["turns"] for row in rows) / max(1, len(rows)),
        "turns": {str(turns): count for turns, count in sorted(Counter(row["turns"] for row in rows).items())},
        "kinds": dict(sorted(kinds.items())),
    }
