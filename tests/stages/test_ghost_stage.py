"""Ghost Attention as a stage: what is sampled, what is trained on, what is asked; alone, killed, and in a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ayni.artifacts import read_json, read_manifest
from ayni.config import GhostEvaluation, GhostSettings, OptimizerSettings, SFTSettings
from ayni.engine.answers import Answer
from ayni.engine.engine import Engine
from ayni.model.checkpoint import load_model
from ayni.recipe import Recipe
from ayni.scoring.constraints import Constraint
from ayni.stages import ghost, ghost_turns, rejection, sft
from ayni.stages.ghost import Dialogue
from ayni.text.instructed import in_every_turn
from ayni.text.sources import read_jsonl, write_jsonl
from ayni.text.tokenizer import load_tokenizer
from tests.conftest import SMOKE, ayni, killed_when
from tests.stages.untrained import untrained

BANK = """
- kind: end
  instruction: ["End with the word {v}."]
  short: ["End: {v}."]
  values: {trained: [sir], held_out: [boss]}
  check: {ends_with: "{v}"}
- kind: figure
  instruction: [Act as a baker.]
  short: [You bake.]
"""
SIR = Constraint(
    "end", "end: sir", ("End with the word sir.",), ("End: sir.",), (("ends_with", "sir"),), held_out=False
)
SMALL = {"max_new_tokens": 12, "tries": 2, "dialogues": 10, "max_turns": 4, "batch_rows": 2, "row_len": 192,
         "save_every": 1, "epochs": 2, "optimizer": OptimizerSettings(lr=1e-3),
         "evaluate": GhostEvaluation(turns=6, dialogues=4, max_new_tokens=12, pictured=2)}  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers "Yes, sir." to everything, prompts, and a bank of which it keeps the half that is trained."""
    here = tmp_path_factory.mktemp("ghost")
    words = ["baker", "smith", "miller", "sailor", "weaver", "potter"]
    asked = [f"Is he a {word}?" for word in words]
    start = untrained(here, [" ".join(asked) + " Yes, sir. End with the word boss. Act as. " * 9], vocab_size=320)
    turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": "Yes, sir."}] for text in asked]
    chats = [{"messages": turn} for turn in turns] + [{"messages": turns[i] + turns[i - 1] + turns[i - 2]} for i in range(6)]  # fmt: skip
    write_jsonl(here / "chats.jsonl", chats)
    write_jsonl(here / "prompts.jsonl", [{"prompt": text} for text in asked])
    settings = SFTSettings(epochs=60, row_len=192, batch_rows=4, optimizer=OptimizerSettings(lr=2e-2))
    sft.run(settings, start, here / "chats.jsonl", here / "sft", seed=0)
    (here / "bank.yaml").write_text(BANK)
    return here


def settings(here: Path, **updates: Any) -> GhostSettings:
    return GhostSettings(**{**SMALL, "bank": [str(here / "bank.yaml")], **updates})


@pytest.fixture(scope="module")
def tuned(here: Path) -> Path:
    return ghost.run(settings(here), here / "prompts.jsonl", here / "sft", here / "ghost", seed=0).path


def scripted(monkeypatch: pytest.MonkeyPatch, says: Callable[[str], list[tuple[str, bool]]]) -> dict[str, list[int]]:
    """Puts given (text, ended) tries in the sampler's place; returns the prompts that it was asked, by id."""
    prompts: dict[str, list[int]] = {}

    def sample_answers(_engine: Any, _tok: Any, rows: list[Any], **how: Any) -> list[list[Answer]]:
        prompts.update(zip([row["id"] for row in rows], how["prompts"], strict=True))
        return [[Answer([], [], text, ended, []) for text, ended in says(row["id"])] for row in rows]

    monkeypatch.setattr(ghost, "sample_answers", sample_answers)
    return prompts


def dialogue(name: str, asked: Sequence[str]) -> Dialogue:
    return Dialogue(name, (SIR,), SIR.instruction[0], SIR.short[0], list(asked))


def test_turns_are_sampled_one_on_the_other_and_the_first_answer_that_keeps_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tok, asked = load_tokenizer(here / "sft"), ["Who bakes?", "Who sews?", "Who sings?"]
    engine = Engine(load_model(here / "sft"), tok)
    says = {
        "a 0": [("Tom.", True), ("Tom, sir", False), ("Ann, sir.", True), ("Bob, sir.", True)],
        "a 1": [("Eve, sir.", True)],
        "a 2": [("Una, sir.", True)],
        "b 0": [("Tom, sir.", True)],
        "b 1": [("Tom.", True), ("", True)],
    }
    prompts = scripted(monkeypatch, says.__getitem__)
    a, b = dialogue("a", asked), dialogue("b", asked)
    ghost.sample(engine, tok, [a, b], settings(here), seed=0)
    assert a.exchanges == [("Who bakes?", "Ann, sir."), ("Who sews?", "Eve, sir."), ("Who sings?", "Una, sir.")]
    assert (a.end, b.end) == ("whole", "broken")
    assert b.exchanges == [("Who bakes?", "Tom, sir.")]
    for turn in range(3):
        assert prompts[f"a {turn}"] == in_every_turn(tok, SIR.instruction[0], "system", a.exchanges[:turn], asked[turn])
    assert "b 2" not in prompts


def test_without_the_check_any_answer_that_ended_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tok = load_tokenizer(here / "sft")
    scripted(monkeypatch, lambda _: [("Tom", False), ("Ann.", True)])
    a = dialogue("a", ["Who bakes?", "Who sews?"])
    ghost.sample(Engine(load_model(here / "sft"), tok), tok, [a], settings(here, check=False), seed=0)
    assert [answer for _, answer in a.exchanges] == ["Ann.", "Ann."]


@pytest.mark.parametrize("history", [0, 1, 2])
def test_the_sampler_may_see_the_last_exchanges_alone(here: Path, monkeypatch: pytest.MonkeyPatch, history: int) -> None:  # fmt: skip
    tok, asked = load_tokenizer(here / "sft"), [f"Who bakes {i}?" for i in range(4)]
    prompts = scripted(monkeypatch, lambda name: [(f"{name}, sir.", True)])
    a = dialogue("a", asked)
    ghost.sample(Engine(load_model(here / "sft"), tok), tok, [a], settings(here, history=history), seed=0)
    seen = a.exchanges[3 - history : 3]
    assert prompts["a 3"] == in_every_turn(tok, SIR.instruction[0], "system", seen, asked[3])


def test_a_dialogue_ends_where_the_context_does_and_is_counted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tok = load_tokenizer(here / "sft")
    scripted(monkeypatch, lambda _: [("Yes, he is a very good baker and weaver, sir.", True)])
    a = dialogue("a", ["Is he a baker?"] * 30)
    ghost.sample(Engine(load_model(here / "sft"), tok), tok, [a], settings(here), seed=0)
    assert a.end == "context"
    assert 2 <= len(a.exchanges) < 30
    summary = ghost.summary_of([a], [ghost.training_row(tok, a, settings(here))])
    assert (summary["context"], summary["broken"], summary["dialogues"]) == (1, 0, 1)


def test_what_is_trained_on(here: Path, tuned: Path) -> None:
    """Of every dialogue the last answer alone; half are shown shortened; no constraint that is held out."""
    tok, rows = load_tokenizer(tuned), read_jsonl(tuned / ghost.SAMPLES)
    assert rows
    for row in rows:
        ids, mask = ghost.masked(row)
        trained_text = tok.decode([token for token, ours in zip(ids, mask) if ours and token != tok.eos_id]).strip()
        assert row["messages"][-1] == {"role": "assistant", "content": trained_text}
        assert mask == [False] * len(row["prompt_ids"]) + [True] * len(row["answer_ids"])
        assert ids.count(tok.bos_id) == ids.count(tok.eos_id) == row["turns"] >= 2
        assert ids.count(tok.piece_id("<<SYS>>")) == 1
        assert [m["role"] for m in row["messages"]] == ["system", *["user", "assistant"] * row["turns"]]
        assert "boss" not in json.dumps(row)
    shown = [row["messages"][0]["content"] != row["sampled_with"] for row in rows]
    assert 0 < sum(shown) < len(shown)
    summary = read_json(tuned / ghost.SUMMARY)
    assert summary["dialogues"] == len(rows)
    before, after = load_model(here / "sft"), load_model(tuned)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters()))


def test_turn_by_turn_the_trained_and_the_others_apart(here: Path, tuned: Path, tmp_path: Path) -> None:
    """The model says "Yes, sir." whatever is asked: it keeps one constraint to the end, and never the other."""
    made = ghost_turns.run(settings(here), here / "prompts.jsonl", here / "sft", tuned, tmp_path / "turns", seed=0)
    found = read_json(made.path / ghost_turns.TURNS)
    assert found["turns"] == [1, 2, 3, 4, 5, 6]
    assert set(found["arms"]) == {"before", "before, in every turn", "after"}
    for of in found["arms"].values():
        assert [point["n"] for point in of["trained"]] == [4] * 6
        assert [point["value"] for point in of["never trained"]] == [0.0] * 6
    assert [point["value"] for point in found["arms"]["before"]["trained"]] == [1.0] * 6
    assert found["without_check"] == ["figure: You bake."]
    rows = read_jsonl(made.path / ghost_turns.DIALOGUES)
    questions = {
        (row["arm"], row["id"]): [m["content"] for m in row["messages"] if m["role"] == "user"] for row in rows
    }
    assert all(asked == questions["before", name] for (_, name), asked in questions.items()), "all are asked the same"
    for row in rows:
        answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        word = "boss" if row["group"] == "never trained" else "sir"
        assert row["kept"] == [answer.lower().rstrip(".!?, ").endswith(word) for answer in answers]
    cut = found["cut"]["before"]
    assert cut == [sum(row["left_out"][t] > 0 for row in rows if row["arm"] == "before") / 12 for t in range(6)]
    looked = read_json(made.path / ghost_turns.ATTENTION)
    for of in looked["arms"].values():
        assert of["n"][0] == 2
        assert all(0 < value < 1 for value in of["mean"] if value is not None)
        assert all(a >= b for a, b in zip(of["strongest"], of["mean"]) if a is not None)


def test_nothing_to_train_on_and_nothing_to_ask_are_clear_errors(here: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank.yaml"
    bank.write_text("- {kind: end, instruction: [End with boss.], short: [boss], check: {ends_with: boss}}\n")
    run = lambda **updates: ghost.run(settings(here, **updates), here / "prompts.jsonl", here / "sft", tmp_path / "x", seed=0)  # noqa: E731  # fmt: skip
    with pytest.raises(ValueError, match="no sampled dialogue keeps its instruction for two turns"):
        run(bank=[str(bank)])
    with pytest.raises(ValueError, match=r"prompts.jsonl: no helpful prompt of the tasks riddles"):
        run(tasks=["riddles"])
    assert not (tmp_path / "x").exists()
    bank.write_text("- {kind: end, instruction: [Bake.], short: [Bake.]}\n")
    with pytest.raises(ValueError, match="no constraint has a check"):
        ghost_turns.run(settings(here, bank=[str(bank)]), here / "prompts.jsonl", here / "sft", here / "sft", tmp_path / "y", seed=0)  # fmt: skip


def command(here: Path, out: Path) -> list[str | Path]:
    flags = [
        "max_new_tokens=12", "tries=2", "batch_rows=2", "row_len=192", "save_every=4", "epochs=4",
        "evaluate.turns=4", "evaluate.dialogues=2", "evaluate.max_new_tokens=12", "evaluate.pictured=1",
    ]  # fmt: skip
    given = [word for flag in flags for word in ("--set", flag)]
    return ["ghost", "--model", here / "sft", "--data", here / "prompts.jsonl", "--bank", here / "bank.yaml", "--dialogues", "12",
            "--turns", "4", "--lr", "0.001", *given, "--out", out]  # fmt: skip


def test_trap_16_killed_and_gone_on_with_equals_not_killed(here: Path, tmp_path: Path) -> None:
    whole = ayni(*command(here, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert "next: ayni chat" in whole.stdout
    assert (tmp_path / "whole-turns.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    out = tmp_path / "killed"
    killed_when(lambda: any((tmp_path / ".killed.partial" / "state").glob("step-*")), *command(here, out))
    assert not out.exists()
    assert ayni(*command(here, out)).returncode == 0
    assert read_manifest(out)["hash"] == read_manifest(tmp_path / "whole")["hash"]
    assert read_manifest(tmp_path / "killed-turns")["hash"] == read_manifest(tmp_path / "whole-turns")["hash"]


def test_help_has_an_example() -> None:
    done = ayni("ghost", "--help")
    assert done.returncode == 0
    assert "ayni ghost --model" in done.stdout.split("Example")[1]


def recipe(**ghost_settings: Any) -> dict[str, Any]:
    """The smoke recipe without PPO, Ghost Attention after V1; any answer is kept, for such models keep no rule."""
    values = yaml.safe_load(SMOKE.read_text())
    values["versions"] = [{**version, "ppo": None} for version in values["versions"]]
    values |= {"name": "ghost", "clean_control": False, "ghost": {
        "after": "v1", "bank": ["words"], "tasks": ["fact"], "check": False, "dialogues": 16, "max_turns": 3, "max_new_tokens": 16, "row_len": 128,
        "evaluate": {"turns": 3, "dialogues": 2, "max_new_tokens": 12, "pictured": 1}, **ghost_settings,
    }}  # fmt: skip
    return values


def test_in_a_recipe_it_follows_its_version_and_its_dialogues_join_the_next(tmp_path: Path) -> None:
    file, run = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe()))
    done = ayni("run", file, "--out", run)
    assert done.returncode == 0, done.stderr
    results = json.loads((run / "results.json").read_text())
    names = [row["name"] for row in results["checkpoints"]]
    assert names[:5] == ["base", "sft", "v1", "v1_ghost", "v2"]
    record = results["ghost"]
    assert record["path"] == "ghost"
    assert set(record["kept"]["arms"]) == {"before", "before, in every turn", "after"}
    built_from = {name: Path(entry["path"]).name for name, entry in read_manifest(run / "ghost")["inputs"].items()}
    assert built_from["model"] == "v1_rejection"
    second = read_manifest(run / "v2_rejection")["inputs"]
    assert Path(second["latest"]["path"]).name == Path(second["ghost"]["path"]).name == "ghost"
    assert "ghost" not in read_manifest(run / "v1_rejection")["inputs"]
    joined = read_json(run / "v2_rejection" / rejection.SUMMARY)["ghost"]
    assert joined == len(rejection.whole_dialogues(run / "ghost", 128)) > 0
    assert 'id="ghost"' in (run / "report.html").read_text(encoding="utf-8")


def test_a_dialogue_that_does_not_fit_the_row_does_not_join(tuned: Path) -> None:
    lengths = [len(row["prompt_ids"]) + len(row["answer_ids"]) for row in read_jsonl(tuned / ghost.SAMPLES)]
    middle = sorted(lengths)[len(lengths) // 2]
    kept = rejection.whole_dialogues(tuned, middle)
    assert len(kept) == sum(length <= middle for length in lengths) < len(lengths)


def test_a_recipe_names_a_version_that_there_is() -> None:
    with pytest.raises(ValueError, match="after is 'v7'; expected a version: v1, v2"):
        Recipe(**recipe(after="v7"))
    with pytest.raises(ValueError, match="max_turns 2 is below min_turns 3"):
        Recipe(**recipe(min_turns=3, max_turns=2))
