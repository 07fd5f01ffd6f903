"""`ayni compare`: which of several models answers better, by judges that are named (paper 3.4, figs. 11 and 12).

    answers    each model's own way through every prompt, once, an artifact a model: taken again for other judges
    judge      every two models on every prompt, by every rater; who sees both answers is asked in both orders
    count      the majority's wins, ties and losses, win rates at equal length, strengths, intervals over prompts

What labelled the training data of a compared model must not judge it (TRAPS 24): manifests tell, before anything is written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ayni.artifacts import STATE, Artifact, build, is_artifact, read_manifest, write_json
from ayni.config_measuring import CompareSettings
from ayni.engine.answers import row_seed
from ayni.engine.engine import Engine
from ayni.evals.dialogues import answered, said_next
from ayni.evals.endpoint import endpoint
from ayni.evals.judge_prompts import load_judge_prompt
from ayni.evals.labellers import Lineage, lineage, shared_by_name, shared_by_plugin, shared_by_reward
from ayni.evals.memory import Memory
from ayni.evals.pairwise import Comparison
from ayni.evals.raters import ByEndpoint, ByPlugin, ByReward, Opinion, Pair, Rater, people
from ayni.evals.statistics import mean_interval, missing, share
from ayni.evals.tallies import agreement, comparisons, majority, places, strengths, tallies
from ayni.model.checkpoint import check_vocabulary, is_scalar, load_model
from ayni.plugins import plugin
from ayni.scoring.reward import load_reward_model
from ayni.text.sources import read_jsonl, read_prompts, write_jsonl
from ayni.text.tokenizer import load_tokenizer

ANSWERS, COMPARISONS, RESULTS = "answers.jsonl", "comparisons.jsonl", "results.json"
FORMS = "a plug-in's name, reward:DIR, endpoint:URL#MODEL or people:FILE"
Row = dict[str, Any]


@dataclass(frozen=True)
class Seat:
    """A judge as it was named. `make(work)` gives its raters, called `raters`; `shared(lineage)` what it shares with those who labelled."""

    raters: list[str]
    make: Callable[[Path], Sequence[Rater]]
    shared: Callable[[Lineage], list[str]]
    inputs: dict[str, Path | None]


def run(
    settings: CompareSettings,
    models: Sequence[Path],
    prompts: Path,
    out: Path,
    *,
    seed: int,
    data: Path | None = None,
    answers: Path | None = None,
    allow_shared: bool = False,
    draw: Callable[[Path], object] | None = None,
) -> Artifact:
    """Writes comparisons.jsonl (every prompt and pair: answers, order, grades, verdict) and results.json.

    `data`: the data directory that a plug-in judge knows. `answers`: where answers are kept, a folder a model. `draw(work)`
    adds the page. ValueError if a judge shares something with the training labels, unless `allow_shared`, which marks the table.
    """
    rows = prompts_of(prompts, settings.limit)
    named = names_of(models)
    if data is None and is_artifact(prompts.parent):
        data = prompts.parent
    seats = [seat(settings, judge, title, data) for judge, title in titles(settings.judges).items()]
    called = [name for each in seats for name in each.raters]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise ValueError(f"two judges are called {twice[0]}; leave one out, or name it otherwise in its file")
    shared, unknown = what_is_shared(seats, list(named.values()))
    if shared and not allow_shared:
        raise ValueError(
            f"{'; '.join(shared)}: the judge of a result must share nothing with what labelled the training data. Name "
            "another judge, or say --allow-shared, which marks the table"
        )
    kept = answers or out.with_name(f"{out.name}-answers")
    spoken = {name: answer(settings, model, prompts, kept / name, seed=seed) for name, model in named.items()}
    about = {"shared": shared, "unknown": unknown}

    def work_in(work: Path) -> None:
        said = {
            name: {row["id"]: row for row in read_jsonl(artifact.path / ANSWERS)} for name, artifact in spoken.items()
        }
        pairs = pairs_of(rows, said, seed)
        raters = [rater for each in seats for rater in each.make(work)]
        opinions = asked(raters, pairs)
        judged = [
            _judged(pair, [(rater.name, of[i]) for rater, of in zip(raters, opinions)]) for i, pair in enumerate(pairs)
        ]
        if not any(row["said"] or row["equal"] for row in judged):
            raise ValueError(
                f"{', '.join(settings.judges)}: no pair of these models' answers is judged there; people must judge the answers in {kept}"
            )
        write_jsonl(work / COMPARISONS, judged)
        write_json(work / RESULTS, results(settings, judged, said, called, about))
        if draw is not None:
            draw(work)

    inputs: dict[str, Path | None] = {
        "prompts": prompts,
        **{f"answers {name}": each.path for name, each in spoken.items()},
    }
    for number, each in enumerate(seats, 1):
        inputs |= {f"judge {number} {role}".strip(): path for role, path in each.inputs.items()}
    return build(out, "compare", settings.model_dump(mode="json") | about, inputs, seed, work_in)


def prompts_of(path: Path, limit: int | None) -> list[Row]:
    rows = read_prompts(path)[:limit]
    seen: set[str] = set()
    for row in rows:
        row["id"] = str(row["id"])
        if row["id"] in seen:
            raise ValueError(f"{path}: two prompts have the id {row['id']!r}; give each its own")
        seen.add(row["id"])
    return rows


def names_of(models: Sequence[Path]) -> dict[str, Path]:
    """By the directory's name, with those above it where two are called alike."""
    if len(models) < 2:
        raise ValueError(f"to compare takes two models or more, not {len(models)}: ayni compare MODEL_A MODEL_B ...")
    whole = [model.resolve() for model in models]
    for model, path in zip(models, whole):
        if whole.count(path) > 1:
            raise ValueError(f"{model}: named twice; a model is not compared with itself")
        if not path.is_dir():
            raise ValueError(f"{model}: no such model directory")
        if is_scalar(model):
            raise ValueError(
                f"{model}: a reward model does not answer; give language models, and this one as --judge reward:{model}"
            )
    depth = 1
    while len({path.parts[-depth:] for path in whole}) < len(whole):
        depth += 1
    return {"-".join(path.parts[-depth:]): model for path, model in zip(whole, models)}


def titles(judges: Sequence[str]) -> dict[str, str]:
    """{judge as given: what it is called in tables}: a path's or an address's last part where that is enough."""
    if twice := sorted({judge for judge in judges if judges.count(judge) > 1}):
        raise ValueError(f"--judge {twice[0]}: named twice")
    short = []
    for judge in judges:
        kind, colon, where = judge.partition(":")
        last = {"reward": Path(where).name, "endpoint": where.rpartition("#")[2]}.get(kind, where)
        short.append(f"{kind}:{last}" if colon else judge)
    return {judge: name if short.count(name) == 1 else judge for judge, name in zip(judges, short)}


def seat(settings: CompareSettings, judge: str, title: str, data: Path | None) -> Seat:
    """Of a judge's name; ValueError for a mistake in it or in what it names, before anything is asked."""
    kind, colon, where = judge.partition(":")
    if not colon:
        make = plugin("judges", judge)
        return Seat(
            [title],
            lambda work: [ByPlugin(title, make(data or Path(), **settings.options))],
            lambda models: shared_by_plugin(judge, models),
            {"data": data},
        )
    if kind == "reward":
        return _reward_seat(settings, judge, title, Path(where))
    if kind == "endpoint":
        return _endpoint_seat(settings, title, where)
    if kind == "people":
        raters = people(Path(where))
        names = [rater.name.removeprefix("people:") for rater in raters]
        return Seat(
            [rater.name for rater in raters],
            lambda work: raters,
            lambda models: shared_by_name(names, models),
            {"people": Path(where)},
        )
    raise ValueError(f"--judge {judge}: expected {FORMS}")


def _reward_seat(settings: CompareSettings, judge: str, title: str, directory: Path) -> Seat:
    if not directory.is_dir():
        raise ValueError(f"--judge {judge}: no such reward model directory")
    if not is_scalar(directory):
        raise ValueError(f"--judge {judge}: {directory} is no reward model; give what `ayni reward` wrote")

    def make(work: Path) -> Sequence[Rater]:
        model, tokenizer = load_reward_model(directory), load_tokenizer(directory)
        memory = Memory(work / STATE / f"{row_seed(0, judge):08x}.jsonl")
        return [ByReward(title, model, tokenizer, model.head.settings.max_seq_len, settings.tie_band, memory)]

    return Seat([title], make, lambda models: shared_by_reward(directory, models), {"reward": directory})


def _endpoint_seat(settings: CompareSettings, title: str, where: str) -> Seat:
    prompts = {str(kind): load_judge_prompt(name) for kind, name in settings.judge_prompts.items()}
    if none := sorted({"helpful", "safety"} - set(prompts)):
        raise ValueError(f"judge_prompts names none for {none[0]} prompts")
    model = endpoint(where).model

    def make(work: Path) -> Sequence[Rater]:
        cache = work / STATE / "endpoint.jsonl"
        return [ByEndpoint(title, endpoint(where, cache, max_tokens=settings.judge_tokens), prompts)]

    files: dict[str, Path | None] = {
        f"prompt {kind}": Path(name) for kind, name in settings.judge_prompts.items() if Path(name).is_file()
    }
    return Seat([title], make, lambda models: shared_by_name([model], models), files)


def what_is_shared(seats: Sequence[Seat], models: Sequence[Path]) -> tuple[list[str], list[str]]:
    """(what judges share with those who labelled the models' training data, what of it is not on record)."""
    of_all = Lineage()
    for model in models:
        of_all.add(lineage(model))
    shared = [reason for each in seats for reason in each.shared(of_all)]
    return list(dict.fromkeys(shared)), of_all.unknown


# ---- answers ---------------------------------------------------------------------------------------------------------


def answer(settings: CompareSettings, model: Path, prompts: Path, out: Path, *, seed: int) -> Artifact:
    """Writes answers.jsonl: {"id", "replies", "tokens", "ended"} for every prompt. A base model is asked in completion style."""
    sampling = settings.model_dump(include={"temperature", "max_new_tokens", "limit"})

    def work_in(work: Path) -> None:
        tokenizer, policy = load_tokenizer(model), load_model(model, "auto")
        check_vocabulary(policy.settings, tokenizer, str(model))
        is_base = is_artifact(model) and read_manifest(model)["stage"] == "pretrain"
        found = answered(
            Engine(policy, tokenizer),
            tokenizer,
            prompts_of(prompts, settings.limit),
            Memory(work / STATE / ANSWERS),
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            style="completion" if is_base else "chat",
            name=f"answers of {out.name}",
        )
        write_jsonl(work / ANSWERS, found)

    return build(out, "answers", sampling, {"model": model, "prompts": prompts}, seed, work_in)


# ---- judgements ------------------------------------------------------------------------------------------------------


def pairs_of(rows: Sequence[Row], said: dict[str, dict[str, Row]], seed: int) -> list[Pair]:
    """Every two models on every prompt; who is shown first is drawn by the seed, the prompt and the two names."""
    pairs = []
    for a, b in combinations(said, 2):
        for row in rows:
            a_first = random.Random(row_seed(seed, f"{row['id']} {a} {b}")).random() < 0.5
            replies = [tuple(said[name][row["id"]]["replies"]) for name in (a, b)]
            pairs.append(Pair(row, a, b, replies[0], replies[1], a_first))
    return pairs


def asked(raters: Sequence[Rater], pairs: Sequence[Pair]) -> list[list[Opinion | None]]:
    """Of every rater one opinion a pair. Equal answers are a tie that nobody is asked about."""
    differ = [pair for pair in pairs if not pair.equal]
    out = []
    for rater in raters:
        given = iter(rater.rate(differ))
        out.append([None if pair.equal else next(given) for pair in pairs])
    return out


def _judged(pair: Pair, opinions: Sequence[tuple[str, Opinion | None]]) -> Row:
    """The row of comparisons.jsonl (evals/tallies.py)."""
    said: dict[str, Row] = {
        name: {"grades": list(opinion.grades), "grade": opinion.grade, **({"replies": list(opinion.replies)} if opinion.replies else {})}
        for name, opinion in opinions
        if opinion is not None
    }  # fmt: skip
    return {
        "id": pair.row["id"],
        "prompt_kind": pair.row["prompt_kind"],
        "task": pair.row["task"],
        "messages": pair.row["messages"],
        "further": said_next(pair.row),
        "turns": sum(m["role"] == "user" for m in pair.row["messages"]) + len(said_next(pair.row)),
        "a": pair.a,
        "b": pair.b,
        "answers": {"a": list(pair.replies_a), "b": list(pair.replies_b)},
        "shown_first": "a" if pair.a_first else "b",
        "said": said,
        "equal": pair.equal,
        "grade": 0 if pair.equal else majority([of["grade"] for of in said.values()]),
        "longer": sum(map(len, pair.replies_a)) - sum(map(len, pair.replies_b)),
    }


def results(settings: CompareSettings, judged: Sequence[Row], said: dict[str, dict[str, Row]], raters: Sequence[str], about: Row) -> Row:  # fmt: skip
    names = list(said)
    found = strengths(judged, settings.prior)
    return {
        "checkpoints": [
            {"name": name, "path": None, "metrics": _of_model(name, judged, list(said[name].values()), found)}
            for name in names
        ],
        "pairs": tallies(judged, names),
        "places": places(judged, raters),
        "agreement": agreement(judged, raters),
        "prompts": len({row["id"] for row in judged}),
        "equal": sum(row["equal"] for row in judged),
        **about,
        "settings": settings.model_dump(mode="json"),
    }


def _of_model(name: str, judged: Sequence[Row], answers: Sequence[Row], found: Row) -> Row:
    def points(each: Comparison) -> float:
        return each.points if each.a == name else 1 - each.points

    own = [each for each in comparisons(judged) if name in (each.a, each.b)]
    return {
        "win_rate": mean_interval([points(each) for each in own], "share", [each.prompt for each in own]),
        "strength": found.get(name, missing("log strength")),
        "mean_tokens": mean_interval([float(sum(row["tokens"])) for row in answers], "tokens"),
        "ended": share([all(row["ended"]) for row in answers]),
    }
