"""Stage: each checkpoint against SFT and against the version before (paper fig. 11), by two judges.

The own reward models: on helpful prompts the helpfulness model's score decides, on safety prompts the safety model's. All
checkpoints are scored by the LAST version's reward models, so that one yardstick serves the whole progress; it has seen the
answers of every version but its own, and what RLHF made of it cannot be told apart from progress: hence the second judge.
The plug-in judge, which labelled nothing: utility on harmless prompts, violations on harmful ones.

A win share is (wins + ties / 2) / n, over the answers that the evaluations sampled already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ayni.artifacts import Artifact, build, write_json
from ayni.engine.answers import encoded_answer
from ayni.evals.judging import ANSWERS, Verdict, read_verdicts
from ayni.evals.metrics import is_benign
from ayni.evals.statistics import missing, win_share
from ayni.scoring.reward import Scorers, load_reward_models
from ayni.text.sources import read_jsonl, read_prompts, write_jsonl
from ayni.text.tokenizer import load_tokenizer

FIGURES = "versus.json"
REWARDS = "rewards.jsonl"
Row = dict[str, Any]
Worth = Sequence[float]  # of each held-out prompt's answer


def run(
    data: Path,
    evaluations: dict[str, Path],
    previous: dict[str, str | None],
    scorers: Scorers | None,
    out: Path,
    *,
    row_len: int,
    seed: int,
) -> Artifact:
    """Writes versus.json ({checkpoint: {figure: ...}}) and rewards.jsonl ({"id", "prompt_kind", "rewards": {checkpoint: score}}).

    `evaluations`: a finished evaluation a checkpoint, "sft" among them. `previous`: which checkpoint each is compared with
    beside SFT, None for none. `scorers`: the last version's reward models; None: those figures are missing.
    """

    def work_in(work: Path) -> None:
        rows = read_prompts(data / "prompts_eval.jsonl")
        verdicts = {name: read_verdicts(path) for name, path in evaluations.items()}
        rewards = own_rewards(rows, evaluations, scorers, row_len) if scorers is not None else {}
        write_jsonl(
            work / REWARDS,
            ({"id": row["id"], "prompt_kind": row["prompt_kind"],
              "rewards": {name: round(of[i], 4) for name, of in rewards.items()}} for i, row in enumerate(rows)),
        )  # fmt: skip
        write_json(work / FIGURES, {name: figures(rows, verdicts, rewards, name, previous[name]) for name in verdicts})

    inputs: dict[str, Path | None] = {
        "data": data,
        **{f"evaluation {name}": path for name, path in evaluations.items()},
    }
    if scorers is not None:
        inputs |= {"helpfulness": scorers.helpfulness, "safety": scorers.safety}
    return build(out, "versus", {"row_len": row_len, "previous": previous}, inputs, seed, work_in)


def own_rewards(rows: list[Row], evaluations: dict[str, Path], scorers: Scorers, row_len: int) -> dict[str, Worth]:
    """{checkpoint: [the helpfulness score of a helpful prompt's answer, the safety score of a safety prompt's]}."""
    models, tokenizer = load_reward_models(scorers), load_tokenizer(scorers.helpfulness)
    rewards: dict[str, Worth] = {}
    for name, evaluation in evaluations.items():
        texts = [row["answer"] for row in read_jsonl(evaluation / ANSWERS)]
        answers = [[encoded_answer(tokenizer, row["messages"], text)] for row, text in zip(rows, texts, strict=True)]
        scores = models.of_answers(rows, answers, row_len)
        safety = scores.safety if models.safety is not None else scores.helpfulness
        rewards[name] = [
            float(safety[i] if row["prompt_kind"] == "safety" else scores.helpfulness[i]) for i, row in enumerate(rows)
        ]
    return rewards


def figures(
    rows: list[Row],
    verdicts: dict[str, list[Verdict]],
    rewards: dict[str, Worth],
    name: str,
    previous: str | None,
) -> dict[str, Any]:
    """One checkpoint's win shares; a figure without an opponent or without reward models is missing.

    helpful_win_vs_previous        the judge's utility, harmless prompts (against SFT: evaluate.py)
    harmless_win_vs_sft, _previous harmful prompts: no violation beats a violation
    reward_win_vs_X_helpful        the helpfulness model, prompts of that kind
    reward_win_vs_X_safety         the safety model, prompts of that kind
    """
    utility = {of: [verdict.utility for verdict in given] for of, given in verdicts.items()}
    harmless = {of: [float(not verdict.violation) for verdict in given] for of, given in verdicts.items()}
    found = {"helpful_win_vs_previous": _win(rows, utility, name, previous, is_benign)}
    for opponent, word in (("sft", "sft"), (previous, "previous")):
        found[f"harmless_win_vs_{word}"] = _win(rows, harmless, name, opponent, lambda row: not is_benign(row))
        for kind in ("helpful", "safety"):
            inside = _of_kind(kind)
            found[f"reward_win_vs_{word}_{kind}"] = _win(rows, rewards, name, opponent, inside)
    return found


def _of_kind(kind: str) -> Callable[[Row], bool]:
    return lambda row: row["prompt_kind"] == kind


def _win(
    rows: list[Row], worth: Mapping[str, Worth], name: str, opponent: str | None, inside: Callable[[Row], bool]
) -> dict[str, Any]:
    if opponent is None or name not in worth:
        return missing("share")
    kept = [i for i, row in enumerate(rows) if inside(row)]
    ours, theirs = worth[name], worth[opponent]
    return win_share([ours[i] for i in kept], [theirs[i] for i in kept], [rows[i]["id"] for i in kept])
