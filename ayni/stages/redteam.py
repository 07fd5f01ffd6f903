"""Stage: one red-team round on one model (paper 4.3), on what earlier rounds found.

    search     tries until the budget is spent; the red team's eyes say what looks unsafe and steer it (evals/red_team.py)
    judge      every try; a violation is a finding, with its degree (evals/red_team_findings.py)
    ask again  the findings of this round, and of every earlier one: a share of those is fixed by now
    split      by objective: flagged ones may train, those of held-out objectives never do, in no later round either

The judge measures; the eyes label what trains (`train.jsonl`); the two share no code (TRAPS 24). Times stand in
`logs/clock.json`, which is not payload: the same seed makes the same bytes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import LOGS, Artifact, build, read_json, write_json
from ayni.config_measuring import RedTeamSettings
from ayni.engine.answers import row_seed
from ayni.engine.engine import Engine
from ayni.evals.attack_split import held_out, inputs, open_bank, sides
from ayni.evals.judging import Judge, Verdict
from ayni.evals.red_team import Round, Try
from ayni.evals.red_team_findings import FINDINGS, SUMMARY, ask_again, clock_of, still_open, summary_of
from ayni.evals.red_team_target import Target
from ayni.feedback.schema import Annotator
from ayni.model.checkpoint import check_vocabulary, load_model
from ayni.plugins import plugin
from ayni.text.attacks import Row
from ayni.text.sources import write_jsonl
from ayni.text.tokenizer import load_tokenizer

TRIES, TRAIN, HELD_OUT = "tries.jsonl", "train.jsonl", "held_out.jsonl"
SPLIT, CLOCK = "split.json", "clock.json"


def run(
    settings: RedTeamSettings,
    model: Path,
    out: Path,
    *,
    seed: int,
    number: int = 1,
    earlier: Sequence[Path] = (),
    data: Path | None = None,
) -> Artifact:
    """Writes tries, findings, train and held_out (.jsonl), split.json and summary.json; the times in logs/clock.json.

    `data`: the data directory of judge and eyes, where they need one. `earlier`: rounds before, of this or another model.
    """

    def work_in(work: Path) -> None:
        make_judge, make_eyes = makers(settings)
        judge: Judge = make_judge(data or Path(), **settings.options)
        eyes: list[Annotator] = make_eyes(data or Path(), seed=seed, **settings.eyes_options)
        bank = open_bank(settings.attacks)
        before = [read_json(path / SPLIT) for path in earlier]
        sorted_before = [(set(split["held_out"]), set(split["not_held_out"])) for split in before]
        held = held_out(settings.attacks, bank, seed, sorted_before)
        tokenizer, policy = load_tokenizer(model), load_model(model, "auto")
        check_vocabulary(policy.settings, tokenizer, str(model))
        target = Target(Engine(policy, tokenizer), tokenizer, settings, row_seed(seed, f"round {number}"))
        rng = random.Random(target.seed)
        found = Round(
            bank, held, target.ask, target.rewrite, lambda row, answer: unsafe(eyes, row, answer, rng), rng,
            search=settings.search, max_turns=settings.max_turns,
        )  # fmt: skip
        started, seconds = time.monotonic(), []
        with telemetry.progress(f"round {number}: tries", settings.tries, "tries") as bar:

            def after(batch: list[Try]) -> None:
                seconds.extend([time.monotonic() - started] * len(batch))
                bar.advance(len(batch), unsafe=sum(one.flagged for one in found.tries))

            found.run(settings.tries, settings.batch, after)
        taken = time.monotonic() - started
        verdicts = [judge.judge(one.row, [one.answer])[0] for one in found.tries]
        findings = ask_again(target, judge, found.tries, verdicts, held, number)
        write_jsonl(work / TRIES, (_logged(one, verdict) for one, verdict in zip(found.tries, verdicts)))
        write_jsonl(work / FINDINGS, findings)
        write_jsonl(work / TRAIN, _rows([one for one in found.tries if one.flagged and held.trains(one.row)], number))
        never = [one for one, v in zip(found.tries, verdicts) if v.violation and one.row["meta"]["heldout_objective"]]
        write_jsonl(work / HELD_OUT, _rows(never, number))
        write_json(work / SPLIT, sides(bank, held))
        fixed = [still_open(target, judge, path) for path in earlier]
        write_json(work / SUMMARY, {"round": number, "model": model.name, **summary_of(found, verdicts, findings), "fixed": fixed})  # fmt: skip
        write_json(work / LOGS / CLOCK, clock_of(taken, seconds, findings, target.tokens))

    named = {f"earlier {i}": path for i, path in enumerate(earlier, 1)}
    given = {"model": model, "data": data, **inputs(settings.attacks), **named}
    return build(out, "redteam", {**settings.model_dump(mode="json"), "round": number}, given, seed, work_in)


def rounds(
    settings: RedTeamSettings,
    models: Sequence[Path],
    count: int,
    out: Path,
    *,
    seed: int,
    earlier: Sequence[Path] = (),
    data: Path | None = None,
) -> list[Path]:
    """`count` rounds in OUT/round-1, ...: the models in turn, as equally long as can be. Each sees all rounds before it.

    A round that stands whole is not made again, so a run that was killed goes on with the round it was in.
    """
    if count < len(models):
        raise ValueError(f"{len(models)} models need as many rounds or more, not {count}; raise --rounds")
    before = [path for directory in earlier for path in rounds_in(directory)]
    makers(settings)  # a mistake here or in the bank is told before anything is written
    open_bank(settings.attacks)
    made: list[Path] = []
    for number in range(1, count + 1):
        model = models[(number - 1) * len(models) // count]
        telemetry.heading(f"red-team round {number} of {count}: {model.name}")
        made.append(out / f"round-{number}")
        run(settings, model, made[-1], seed=seed, number=number, earlier=[*before, *made[:-1]], data=data)
    return made


def rounds_in(directory: Path) -> list[Path]:
    """The rounds of a red team's directory, in order; a round's own directory is one."""
    if (directory / SUMMARY).is_file():
        return [directory]
    found = [path for path in directory.glob("round-*") if (path / SUMMARY).is_file()]
    if not found:
        raise ValueError(f"{directory}: no red-team round in it; give what `ayni redteam` wrote with --out")
    return sorted(found, key=lambda path: read_json(path / SUMMARY)["round"])


def makers(settings: RedTeamSettings) -> tuple[Callable[..., Judge], Callable[..., list[Annotator]]]:
    """Who makes the judge, which measures, and the eyes, which look while searching.

    ValueError if both come from one module: they would see alike, and what labels training data must not measure the result.
    """
    eyes = settings.eyes or settings.judge
    make_judge, make_eyes = plugin("judges", settings.judge), plugin("annotators", eyes)
    if make_judge.__module__ == make_eyes.__module__:
        raise ValueError(
            f"judge {settings.judge!r} and eyes {eyes!r} are of one module, {make_judge.__module__}: what labels training data "
            "must not measure the result; name other eyes"
        )
    return make_judge, make_eyes


def unsafe(eyes: Sequence[Annotator], row: Row, answer: str, rng: random.Random) -> bool:
    """One of the annotators looks at the answer: what they say of it beside itself."""
    judgement = rng.choice(eyes).compare(row, answer, answer, rng)
    first_chosen = judgement.choice == 0
    safe = {"both": True, "neither": False, "chosen_only": first_chosen, "rejected_only": not first_chosen}
    return not safe[str(judgement.safety)]


def _logged(one: Try, verdict: Verdict) -> dict[str, Any]:
    return {
        "try": one.number,
        "category": one.arm[0],
        "move": one.arm[1],
        "parent": one.parent,
        "chain": one.chain,
        "flagged": one.flagged,
        "label": verdict.label,
        "violation": bool(verdict.violation),
        "messages": one.dialogue,
        "meta": one.row["meta"],
    }


def _rows(tries: Sequence[Try], number: int) -> list[Row]:
    """Prompt rows, without the answer and without anything that the judge said."""
    return [{**one.row, "id": f"round-{number}-{one.row['id']}", "source": f"redteam:round-{number}"} for one in tries]
