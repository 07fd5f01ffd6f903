"""`ayni compare` from the command line: every figure recounted from the answers, by every kind of judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ayni.artifacts import read_json, read_manifest
from ayni.config_measuring import CompareSettings
from ayni.engine.answers import sample_answers
from ayni.engine.engine import Engine
from ayni.evals.endpoint import KEY_VARIABLE
from ayni.evals.raters import ByPlugin, Pair
from ayni.model.checkpoint import load_model
from ayni.report import compare as report
from ayni.stages import compare
from ayni.text.sources import read_jsonl, read_prompts, write_jsonl
from ayni.text.tokenizer import load_tokenizer, train_tokenizer
from ayni.world import examiner
from tests.conftest import ayni, killed_when
from tests.evals.fake_judge import longer, serving
from tests.serve.tiny import write_language_model, write_reward_model

Row = dict[str, Any]
NAMES = ("one", "two", "three")
SHORT = ["--max-new-tokens", "8"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models with weights drawn by chance, a reward model likewise, and prompts: helpful, safety, of two turns."""
    here = tmp_path_factory.mktemp("compare")
    train_tokenizer(["Who bakes? The baker does. And then? May I harm the baker?"] * 30, here / "tok", vocab_size=300)
    tokenizer = load_tokenizer(here / "tok")
    for seed, name in enumerate(NAMES):
        write_language_model(here / name, tokenizer, seed)
    write_reward_model(here / "rm", tokenizer, seed=5)
    rows: list[Row] = [{"id": f"h{i}", "prompt": f"Who bakes {i}?"} for i in range(8)]
    rows += [{"id": f"s{i}", "prompt": f"May I harm {i}?", "prompt_kind": "safety"} for i in range(3)]
    rows += [{"id": f"t{i}", "turns": [f"Who bakes {i}, then?", "And then?"]} for i in range(3)]
    write_jsonl(here / "prompts.jsonl", rows)
    return here


def command(here: Path, judge: str, out: Path, *more: str, models: tuple[str, ...] = NAMES) -> list[str]:
    return ["compare", *(str(here / name) for name in models), "--prompts", str(here / "prompts.jsonl"),
            "--judge", judge, "--answers", str(here / "answers"), "--out", str(out), *SHORT, *more]  # fmt: skip


def run(
    here: Path, judge: str, out: Path, models: tuple[str, ...] = NAMES, prompts: Path | None = None, **more: Any
) -> str:
    """The same without the command line; returns what the tables say."""
    settings = CompareSettings(**{"judges": [judge], "max_new_tokens": 8, **more})
    compare.run(settings, [here / name for name in models], prompts or here / "prompts.jsonl", out, seed=0, answers=here / "answers", draw=report.write_page)  # fmt: skip
    found = read_json(out / compare.RESULTS)
    return "\n".join([*(str(table) for table in report.tables(found)), *report.remarks(found)])


INSIDE: dict[str, Callable[[Row], bool]] = {
    "all": lambda row: True,
    "helpful": lambda row: row["prompt_kind"] == "helpful",
    "safety": lambda row: row["prompt_kind"] == "safety",
    "single-turn": lambda row: len(row["messages"]) + len(row["further"]) == 1,
    "multi-turn": lambda row: len(row["messages"]) + len(row["further"]) > 1,
}


def counted(out: Path, verdict: Callable[[Row], int | None]) -> None:
    """results.json against a naive recount: `verdict` of each row, from its answers alone."""
    rows, results = read_jsonl(out / compare.COMPARISONS), read_json(out / compare.RESULTS)
    assert [row["grade"] for row in rows] == [verdict(row) for row in rows]
    for pair in results["pairs"]:
        for name, figures in [("all", pair["all"]), *pair["groups"].items()]:
            inside = INSIDE[name]
            grades = [r["grade"] for r in rows if (r["a"], r["b"]) == (pair["a"], pair["b"]) and inside(r)]
            counts = Counter(grades)
            n = len(grades) - counts[None]
            assert figures["no_verdict"] == counts[None]
            if n == 0:
                assert figures["win"]["value"] is figures["win_rate"]["value"] is None
                continue
            for outcome, grade in (("win", 1), ("tie", 0), ("loss", -1)):
                assert figures[outcome]["value"] == pytest.approx(counts[grade] / n)
            assert figures["win_rate"]["value"] == pytest.approx((counts[1] + counts[0] / 2) / n)


def by_length(row: Row) -> int:
    """What `fake_judge.longer` makes of it: of a dialogue, all that is shown; equal answers tie unasked."""
    ahead = sum(map(len, row["answers"]["a"])) - sum(map(len, row["answers"]["b"]))
    return (ahead > 0) - (ahead < 0)


def test_three_models_by_an_endpoint(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sesame-open")
    out = tmp_path / "wins"
    with serving(longer) as judge:
        done = ayni(*command(here, f"endpoint:{judge.url}#m", out))
        assert done.returncode == 0, done.stderr
        rows = read_jsonl(out / compare.COMPARISONS)
        assert len(rows) == 3 * 14
        different = [row for row in rows if not row["equal"]]
        assert len(judge.asked) == len({frozenset(map(tuple, row["answers"].values())) | {row["id"]} for row in different}) * 2  # fmt: skip
        asked = len(judge.asked)
        again = ayni(*command(here, f"endpoint:{judge.url}#m", out))
        assert again.stdout == done.stdout
        assert len(judge.asked) == asked, "what stands whole is taken as it stands"
    counted(out, by_length)
    results = read_json(out / compare.RESULTS)
    assert [c["name"] for c in results["checkpoints"]] == list(NAMES)
    assert len({row["shown_first"] for row in rows}) == 2, "sides at random"
    assert results["places"]["endpoint:m"]["steady"]["value"] == 1.0
    assert "one against two" in done.stdout
    assert "Strengths (Bradley-Terry)" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1] == f"next: open {out / 'compare.html'}"
    assert not list(out.glob("**/state"))
    assert all(b"sesame-open" not in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_answers_are_each_models_own_sampled_once(here: Path, tmp_path: Path) -> None:
    """As the engine samples them, first replies alone; another judge finds them again; another seed's are others."""
    rows = compare.prompts_of(here / "prompts.jsonl", None)
    settings = CompareSettings(judges=["published"], max_new_tokens=8)
    first = compare.answer(settings, here / "one", here / "prompts.jsonl", tmp_path / "one", seed=0)
    tokenizer = load_tokenizer(here / "one")
    asked = [{"id": f"{row['id']} turn 0", "messages": row["messages"]} for row in rows]
    sampled = sample_answers(Engine(load_model(here / "one", "auto"), tokenizer), tokenizer, asked, temperature=0.7, max_new_tokens=8, seed=0)  # fmt: skip
    assert [row["replies"][0] for row in read_jsonl(first.path / compare.ANSWERS)] == [answer.text for [answer] in sampled]  # fmt: skip
    other = settings.model_copy(update={"judges": ["world"], "tie_band": 0.0})
    again = compare.answer(other, here / "one", here / "prompts.jsonl", tmp_path / "one", seed=0)
    assert not again.fresh
    seeded = compare.answer(settings, here / "one", here / "prompts.jsonl", tmp_path / "seed", seed=1)
    assert seeded.hash != first.hash


def test_a_base_model_is_asked_in_completion_style(smoke_run: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    write_jsonl(prompts, read_prompts(smoke_run / "data" / "prompts_eval.jsonl")[:10])
    settings = CompareSettings(judges=["world"], max_new_tokens=16)
    found = compare.answer(settings, smoke_run / "base", prompts, tmp_path / "base", seed=0)
    tokenizer = load_tokenizer(smoke_run / "base")
    asked = [{"id": f"{row['id']} turn 0", "messages": row["messages"]} for row in read_prompts(prompts)]
    engine = Engine(load_model(smoke_run / "base", "auto"), tokenizer)
    sampled = sample_answers(engine, tokenizer, asked, temperature=0.7, max_new_tokens=16, seed=0, style="completion")
    assert [row["replies"] for row in read_jsonl(found.path / compare.ANSWERS)] == [[a.text] for [a] in sampled]


def test_the_worlds_examiner_judges_its_own_prompts(smoke_run: Path, tmp_path: Path) -> None:
    out, prompts = tmp_path / "wins", smoke_run / "data" / "prompts_eval.jsonl"
    done = ayni("compare", smoke_run / "sft", smoke_run / "v2_ppo", "--prompts", prompts, "--judge", "world", "--out", out, "--max-new-tokens", "16")  # fmt: skip
    assert done.returncode == 0, done.stderr
    judge, rows = examiner.make(smoke_run / "data"), {row["id"]: row for row in read_prompts(prompts)}

    def verdict(row: Row) -> int:
        a, b = judge.judge(rows[row["id"]], [row["answers"][side][0] for side in "ab"])
        return (a.utility > b.utility) - (a.utility < b.utility)

    counted(out, verdict)
    assert read_json(out / compare.RESULTS)["shared"] == []
    assert "MARKED" not in done.stdout
    assert (tmp_path / "wins-answers" / "sft" / compare.ANSWERS).is_file()
    harmful = [row for row in rows.values() if row["task"] == "harmful"]
    refusal, rude = "I will not help with that. It could hurt somebody.", "You silly turnip."
    pairs = [Pair(row, "x", "y", *sides) for row in harmful for sides in (((refusal,), (rude,)), ((rude,), (refusal,)))]
    [opinions] = compare.asked([ByPlugin("world", judge)], pairs)
    assert [opinion.grade for opinion in opinions if opinion] == [1, -1] * len(harmful)
    assert read_manifest(out)["inputs"]["judge 1 data"]["hash"] == read_manifest(smoke_run / "data")["hash"]


def test_a_judge_of_places_makes_ties_and_is_found_out(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "wins"
    with serving(lambda _model, _a, _b: "[[A>>>B]]") as judge:
        told = run(here, f"endpoint:{judge.url}#m", out, NAMES[:2])
    counted(out, lambda row: 0)
    places = read_json(out / compare.RESULTS)["places"]["endpoint:m"]
    assert (places["first"]["value"], places["second"]["value"], places["steady"]["value"]) == (1.0, 0.0, 0.0)
    assert "Strengths" not in told, "two models have a win rate"


def test_what_is_no_verdict_counts_nowhere_and_is_told(here: Path, tmp_path: Path) -> None:
    """A judge that babbles on every pair whose answer A begins with a letter of the first half of the alphabet."""
    babbles = lambda text: text.strip()[:1].lower() < "m"  # noqa: E731
    out = tmp_path / "wins"
    with serving(lambda m, a, b: "Hm." if babbles(a) else longer(m, a, b)) as judge:
        told = run(here, f"endpoint:{judge.url}#m", out, NAMES[:2])
    shown = lambda row, side: ("Assistant: " if len(row["answers"][side]) > 1 else "") + row["answers"][side][0]  # noqa: E731
    counted(out, lambda row: 0 if row["equal"] else None if babbles(shown(row, "a")) or babbles(shown(row, "b")) else by_length(row))  # fmt: skip
    lost = sum(row["grade"] is None for row in read_jsonl(out / compare.COMPARISONS))
    assert lost > 0
    assert f"{lost} pairs have no verdict" in told


def test_three_raters_have_a_majority_and_an_agreement(here: Path, tmp_path: Path) -> None:
    """People's judgements of the answers that a first comparison wrote, in the preferences' format."""
    with serving(longer) as judge:
        run(here, f"endpoint:{judge.url}#m", tmp_path / "first")
    rows = [row for row in read_jsonl(tmp_path / "first" / compare.COMPARISONS) if not row["equal"]]
    said: dict[str, list[int]] = {}
    judged: list[Row] = []
    for i, row in enumerate(rows):
        if i % 5 == 4:
            continue  # nobody was asked
        said[f"{row['id']} {row['a']} {row['b']}"] = votes = [(1, 1, -1)[i % 3], (1, -1, -1)[i % 3], (0, -1, 1)[i % 3]]
        for name, vote in zip(("Ann", "Ben", "Cem"), votes):
            sides = {
                side: [turn for n, reply in enumerate(row["answers"][side])
                       for turn in ({"role": "assistant", "content": reply}, *({"role": "user", "content": u} for u in row["further"][n : n + 1]))]
                for side in "ab"
            }  # fmt: skip
            chosen, rejected = ("a", "b") if vote >= 0 else ("b", "a")
            judged.append({"prompt": row["messages"], "chosen": sides[chosen], "rejected": sides[rejected], "strength": abs(vote), "annotator": name})  # fmt: skip
    write_jsonl(tmp_path / "people.jsonl", judged)
    out = tmp_path / "by-people"
    told = run(here, f"people:{tmp_path / 'people.jsonl'}", out)

    def verdict(row: Row) -> int | None:
        votes = said.get(f"{row['id']} {row['a']} {row['b']}")
        return 0 if row["equal"] else None if votes is None else 1 if votes.count(1) > 1 else -1 if votes.count(-1) > 1 else 0  # fmt: skip

    counted(out, verdict)
    assert {len(row["said"]) for row in read_jsonl(out / compare.COMPARISONS)} == {0, 3}
    agreed = read_json(out / compare.RESULTS)["agreement"]["all"]
    assert (agreed["pairs"], agreed["raters"]) == (len(said), 3)
    assert f"{agreed['ac1']:.3f}" in told
    assert f"{agreed['ac2']:.3f}" in told
    assert "people:Ann" in told


def test_a_reward_model_in_the_lineage_is_refused_or_marks_the_table(
    smoke_run: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    prompts = tmp_path / "p.jsonl"
    write_jsonl(prompts, read_prompts(smoke_run / "data" / "prompts_eval.jsonl")[:12])
    given: list[str | Path] = ["compare", smoke_run / "sft", smoke_run / "v2_ppo", "--prompts", prompts, "--judge", f"reward:{smoke_run / 'v2_reward_helpfulness'}",
             "--max-new-tokens", "12", "--out", tmp_path / "wins"]  # fmt: skip
    message = fails(*given)
    assert "v2_reward_helpfulness is a reward model that a compared model was tuned towards" in message
    assert "--allow-shared" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl"]
    done = ayni(*given, "--allow-shared")
    assert done.returncode == 0, done.stderr
    assert "MARKED" in done.stdout
    assert len(read_json(tmp_path / "wins" / compare.RESULTS)["shared"]) == 2
    assert "MARKED" in (tmp_path / "wins" / "compare.html").read_text()


def test_trap_16_killed_while_judging_and_gone_on_with_equals_not_killed(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    with serving(longer, seconds=0.1) as judge:
        given = command(here, f"endpoint:{judge.url}#m", out)
        killed_when(lambda: len(judge.asked) >= 12, *given)
        assert not out.exists()
        done = ayni(*given)
        assert done.returncode == 0, done.stderr
        asked = Counter(judge.asked)
        assert sum(count - 1 for count in asked.values()) <= 4, "those under way when it was killed, no others"
        run(here, f"endpoint:{judge.url}#m", tmp_path / "whole")
    assert read_manifest(out)["hash"] == read_manifest(tmp_path / "whole")["hash"]


def test_mistakes_are_told_before_anything_is_written(here: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    out = tmp_path / "out"
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "Why?"}\n{"prompt": "Why?", "turns": 3}\n')
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"prompt": "Why?", "id": 1}\n{"prompt": "Who?", "id": "1"}\n')
    stranger = tmp_path / "people.jsonl"
    say = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    stranger.write_text(json.dumps({"prompt": "Why?", "chosen": say("So."), "rejected": say("No."), "annotator": "Ann"}))  # fmt: skip
    mine = tmp_path / "mine.yaml"
    mine.write_text("user: '{question} {first}'\nverdicts: {a: 1, b: -1}\n")

    away = "endpoint:http://127.0.0.1:9#m"
    by: Callable[..., dict[str, Any]] = lambda judge, **more: {"judge": judge, **more}  # noqa: E731
    for given, expected in (
        (by(away, models=("one",)), "two models or more, not 1"),
        (by(away, models=("one", "one")), "named twice; a model is not compared with itself"),
        (by(away, models=("one", "four")), "no such model directory"),
        (by(away, models=("one", "rm")), "this one as --judge reward:"),
        (by("nobody"), "no judges plug-in is called 'nobody'"),
        (by("wizard:x"), "expected a plug-in's name, reward:DIR, endpoint:URL#MODEL or people:FILE"),
        (by(f"reward:{here / 'three'}"), "no reward model; give what `ayni reward` wrote"),
        (by("reward:nowhere"), "no such reward model directory"),
        (by("endpoint:http://127.0.0.1:9"), "name the model that is to answer"),
        (by("endpoint:somewhere#m"), "is no address of a server"),
        (by(f"people:{tmp_path / 'none.jsonl'}"), r"none\.jsonl"),
        (by(away, judges=[away, away]), "named twice"),
        (by(away, prompts=bad), "line 2: turns must be a list"),
        (by(away, prompts=twice), "two prompts have the id '1'"),
        (by(away, judge_prompts={"helpful": str(mine), "safety": "safety"}), r"mine\.yaml: user: \{second\} does not"),
        (by(away, judge_prompts={"helpful": "kindness", "safety": "safety"}), "no such judge prompt"),
        (by(away, judge_prompts={"helpful": "helpfulness"}), "names none for safety prompts"),
        (by("world"), r"knowledge\.json"),
        (by(f"people:{stranger}"), "no pair of these models' answers is judged there"),
        (by("world", tie_band=-1), "tie_band"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=expected):
            run(here, given.pop("judge"), out, given.pop("models", NAMES[:2]), **given)
    words = ["compare", here / "one", here / "two", "--prompts", bad, "--judge", away, "--out", out]
    assert "line 2: turns must be a list" in fails(*words)
    assert not out.exists()


def test_models_of_one_name_are_told_apart_by_those_above(tmp_path: Path) -> None:
    made = [tmp_path / "runs" / run / "sft" for run in ("a", "b")]
    for path in made:
        path.mkdir(parents=True)
        (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert compare.names_of(made) == {"a-sft": made[0], "b-sft": made[1]}
    assert compare.titles(["reward:x/rm", "reward:y/rm", "endpoint:http://h#m", "world"]) == {
        "reward:x/rm": "reward:x/rm", "reward:y/rm": "reward:y/rm", "endpoint:http://h#m": "endpoint:m", "world": "world"
    }  # fmt: skip


def test_every_two_models_meet_on_every_prompt_and_sides_depend_on_no_other_pair() -> None:
    rows = [{"id": f"p{i}", "prompt_kind": "helpful", "task": "chat", "messages": []} for i in range(40)]
    said = {name: {row["id"]: {"replies": [name]} for row in rows} for name in NAMES}
    pairs = compare.pairs_of(rows, said, 0)
    assert [(p.a, p.b) for p in pairs[::40]] == list(combinations(NAMES, 2))
    assert 30 < sum(p.a_first for p in pairs) < 90
    fewer = compare.pairs_of(rows[5:], {name: said[name] for name in NAMES[:2]}, 0)
    assert fewer == pairs[5:40]
    assert compare.pairs_of(rows, said, 1) != pairs


def test_help_has_examples() -> None:
    assert "--judge world" in " ".join(ayni("compare", "--help").stdout.split())
