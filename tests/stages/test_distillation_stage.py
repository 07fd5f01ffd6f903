"""Safety context distillation: which prompts, what is kept, what is trained on; alone, killed, and in a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ayni.artifacts import read_json, read_manifest
from ayni.config import DistillationSettings, OptimizerSettings, RewardSettings, SFTSettings
from ayni.engine.answers import Answer
from ayni.engine.engine import Engine
from ayni.model.checkpoint import load_model
from ayni.recipe import Recipe
from ayni.stages import distillation, reward, sft
from ayni.stages.distillation import Distilled
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.preprompts import load_preprompts
from ayni.text.prompts import adversarial_prompts
from ayni.text.sources import read_jsonl, write_jsonl
from ayni.text.tokenizer import load_tokenizer
from tests.conftest import SMOKE, ayni, killed_when
from tests.stages.untrained import untrained

BANK = """
adjectives: [kind, good]
nouns: [friend]
generic: ["You are a {a} {noun}."]
categories:
  bread: ["You are a {a} {noun}. Say no."]
"""
WORDS = ["baker", "smith", "miller", "sailor", "weaver", "potter"]
SMALL: dict[str, Any] = {"max_new_tokens": 12, "batch_rows": 2, "row_len": 128, "save_every": 1, "epochs": 2,
                         "optimizer": OptimizerSettings(lr=1e-3)}  # fmt: skip


def said(text: str, answer: str | None = None, system: str = "") -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return messages if answer is None else [*messages, {"role": "assistant", "content": answer}]


def attack(number: int, **more: Any) -> dict[str, Any]:
    meta = {"category": "bread" if number % 2 else "iron"}
    text = f"Is he a {WORDS[number % 6]}?"
    return {
        "id": f"a{number}",
        "messages": said(text),
        "prompt_kind": "safety",
        "task": "harmful",
        "meta": meta,
        **more,
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers "Yes, sir." alone and "No, sir." under a preprompt, a reward model for "No", and prompts."""
    here = tmp_path_factory.mktemp("distillation")
    asked = [f"Is he a {word}?" for word in WORDS]
    start = untrained(here, [" ".join(asked) + " Yes, sir. No, sir. You are a kind good friend. Say no. " * 9], 320)
    under = ["You are a kind friend.", "You are a good friend.", "You are a kind friend. Say no.", "You are a good friend. Say no."]  # fmt: skip
    chats = [{"messages": said(text, "Yes, sir.")} for text in asked * 3]
    chats += [{"messages": said(text, "No, sir.", system)} for text in asked for system in under]
    write_jsonl(here / "chats.jsonl", chats)
    settings = SFTSettings(epochs=60, row_len=128, batch_rows=4, optimizer=OptimizerSettings(lr=2e-2))
    sft.run(settings, start, here / "chats.jsonl", here / "sft", seed=0)
    pairs = [
        {"id": f"p{i}", "prompt": said(text), "chosen": said("", "No, sir.")[1:], "rejected": said("", "Yes, sir.")[1:],
         "prompt_kind": "safety", "safety": "chosen_only", "strength": 3}
        for i, text in enumerate(asked * 8)
    ]  # fmt: skip
    write_jsonl(here / "pairs.jsonl", pairs)
    how = RewardSettings(epochs=12, batch_pairs=8, row_len=128, optimizer=OptimizerSettings(lr=1e-2))
    reward.run(how, "safety", here / "sft", [here / "pairs.jsonl"], here / "safety", seed=0)
    write_jsonl(here / "attacks.jsonl", [attack(i) for i in range(12)])
    (here / "bank.yaml").write_text(BANK)
    return here


def settings(here: Path, **updates: Any) -> DistillationSettings:
    return DistillationSettings(**{**SMALL, "bank": [str(here / "bank.yaml")], **updates})


def distilled(here: Path, out: Path, prompts: Path | None = None, **updates: Any) -> Path:
    given = prompts or here / "attacks.jsonl"
    return distillation.run(settings(here, **updates), given, here / "sft", here / "safety", out, seed=0).path


@pytest.fixture(scope="module")
def tuned(here: Path) -> Path:
    return distilled(here, here / "tuned")


def pair(name: str, before: float, after: float, text: str = "No.", ended: bool = True, length: int = 4) -> Distilled:
    row = {"id": name, "messages": said("?"), "prompt_kind": "safety", "task": "harmful", "meta": {"category": name[0]}}
    answers = [Answer([1, 2], [3] * length, said, end, []) for said, end in (("Yes.", True), (text, ended))]
    return Distilled(row, "Be kind.", *answers, score_original=before, score=after)


PAIRS = [
    pair("a1", 0.0, 1.0), pair("a2", 1.0, 0.0), pair("b3", 0.5, 0.5), pair("b4", -3.0, -2.9), pair("b5", 0.0, 2.0, ended=False),
    pair("a6", 0.0, 2.0, text=""), pair("a7", 0.0, 2.0, length=126), pair("a8", 0.0, 2.0, length=127), pair("b9", 2.0, 1.0, ended=False),
]  # fmt: skip


@pytest.mark.parametrize("gate", [True, False])
def test_the_gate_keeps_what_scores_above_the_original_and_nothing_else(here: Path, gate: bool) -> None:
    found = distillation.gated(PAIRS, settings(here, gate=gate))
    wanted = []
    for one in PAIRS:
        can_train = one.answer.ended and one.answer.text != "" and 2 + len(one.answer.ids) <= 128
        if can_train and (not gate or one.score > one.score_original):
            wanted.append(one.row["id"])
    assert [one.row["id"] for one in found if one.fate == distillation.KEPT] == wanted
    assert wanted == (["a1", "b4", "a7"] if gate else ["a1", "a2", "b3", "b4", "a7"])
    fates = {one.row["id"]: one.fate for one in found}
    assert (fates["b5"], fates["a6"], fates["b9"], fates["a8"]) == ("cut", "cut", "cut", "long")


def test_the_summary_by_category(here: Path) -> None:
    summary = distillation.summary_of(distillation.gated(PAIRS, settings(here)))
    assert (summary["sampled"], summary["kept"], summary["lower"], summary["cut"], summary["long"]) == (9, 3, 2, 3, 1)
    b = summary["categories"]["b"]
    assert (b["sampled"], b["kept"]) == (4, 1)
    assert b["original"] == pytest.approx((0.5 - 3.0 + 0.0 + 2.0) / 4, abs=1e-4)
    assert b["distilled"] == pytest.approx((0.5 - 2.9 + 2.0 + 1.0) / 4, abs=1e-4)
    assert b["after"] == pytest.approx((0.5 - 2.9 + 0.0 + 2.0) / 4, abs=1e-4)


def test_the_preprompt_makes_answers_safer_and_what_is_kept_scored_higher(here: Path, tuned: Path) -> None:
    rows = read_jsonl(tuned / distillation.ANSWERS)
    assert [row["id"] for row in rows] == [f"a{i}" for i in range(12)]
    for row in rows:
        usable = row["distilled"] != "" and row["fate"] not in ("cut", "long")
        assert (row["fate"] == "kept") == (usable and row["score"] > row["score_original"])
    said_no = [sum(row[which].startswith("No") for row in rows) for which in ("original", "distilled")]
    assert said_no[0] < 6 < said_no[1]
    kept = {row["id"]: row for row in rows if row["fate"] == "kept"}
    samples = read_jsonl(tuned / distillation.SAMPLES)
    assert {row["id"] for row in samples} == set(kept)
    for row in samples:
        assert row["messages"][-1]["content"] == kept[row["id"]]["distilled"]
    summary = read_json(tuned / distillation.SUMMARY)
    assert summary["kept"] == len(kept)
    assert summary["original"] == pytest.approx(sum(r["score_original"] for r in rows) / 12, abs=1e-3)
    assert summary["original"] < summary["distilled"]


def test_scores_are_of_the_prompt_without_the_preprompt(here: Path, tuned: Path) -> None:
    """Each score, by a forward pass of its own over the plain dialogue."""
    tok, model = load_tokenizer(here / "safety"), distillation.load_safety_model(here / "safety")
    for row in read_jsonl(tuned / distillation.ANSWERS)[:6]:
        for text, score in ((row["original"], row["score_original"]), (row["distilled"], row["score"])):
            ids, mask = encode_chat(tok, [*row["messages"], {"role": "assistant", "content": text}])
            end = len(mask) - mask[::-1].index(True)
            first = mask.index(True)
            if tok.decode(ids[first : end - 1]).strip() == text:  # sampled tokens may spell a text otherwise
                ours = model.score([ids[:first]], [ids[first:end]], 128)
                assert float(ours[0]) == pytest.approx(score, abs=1e-3)


def test_the_preprompt_is_nowhere_in_what_is_trained_on(here: Path, tuned: Path) -> None:
    tok = load_tokenizer(tuned)
    asked = {row["id"]: row for row in read_jsonl(here / "attacks.jsonl")}
    rows = read_jsonl(tuned / distillation.SAMPLES)
    assert rows
    for row in rows:
        assert row["messages"][:-1] == asked[row["id"]]["messages"]
        assert row["prompt_ids"] == encode_prompt(tok, asked[row["id"]]["messages"])
        assert tok.piece_id("<<SYS>>") not in row["prompt_ids"] + row["answer_ids"]
        assert not any(word in json.dumps(row) for word in ("kind", "good", "friend", "preprompt"))
        assert row["answer_ids"][-1] == tok.eos_id
    under = {row["preprompt"] for row in read_jsonl(tuned / distillation.ANSWERS)}
    assert under == {"You are a kind friend.", "You are a good friend."}


def test_it_is_trained_by_what_was_kept(here: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[list[int], list[bool]]] = []

    def fine_tune(_work: Path, _title: str, _policy: Any, _tokenizer: Any, samples: Any, *_: Any, **__: Any) -> None:
        given.extend(samples)

    monkeypatch.setattr(distillation, "fine_tune", fine_tune)
    distilled(here, here / "again")
    rows = read_jsonl(tuned / distillation.SAMPLES)
    assert [ids for ids, _ in given] == [row["prompt_ids"] + row["answer_ids"] for row in rows]
    assert [sum(mask) for _, mask in given] == [len(row["answer_ids"]) for row in rows]
    assert all(
        mask[-len(row["answer_ids"]) :] == [True] * len(row["answer_ids"]) for (_, mask), row in zip(given, rows)
    )
    before, after = load_model(here / "sft"), load_model(tuned)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters()))


def test_the_sampler_sees_the_preprompt_as_system_message_and_the_original_does_not(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tok, calls = load_tokenizer(here / "sft"), []

    def sample_answers(_engine: Any, _tok: Any, rows: list[Any], **how: Any) -> list[list[Answer]]:
        calls.append(how["prompts"])
        return [[Answer(prompt, [10], "No.", True, [])] for prompt in how["prompts"]]

    monkeypatch.setattr(distillation, "sample_answers", sample_answers)
    ruled = attack(1, messages=said("Is he a smith?", system="Answer as a smith."))
    asked = [(attack(0), "Be kind."), (ruled, "Be good."), (attack(2), "")]
    engine = Engine(load_model(here / "sft"), tok)
    found, context = distillation.sampled(engine, tok, asked, settings(here), seed=0)
    plain = [encode_prompt(tok, row["messages"]) for row, _ in asked]
    assert calls[0] == plain
    assert calls[1] == [
        encode_prompt(tok, said("Is he a baker?", system="Be kind.")),
        encode_prompt(tok, said("Is he a smith?", system="Be good.\n\nAnswer as a smith.")),
        plain[2],
    ]
    assert [one.answer.prompt_ids for one in found] == plain
    assert context == 0
    long = attack(3, messages=said("Is he a baker? " * 60))
    found, context = distillation.sampled(engine, tok, [*asked, (long, "Be kind.")], settings(here), seed=0)
    assert (len(found), context) == (3, 1)


def test_templates_by_category_and_generic_where_there_is_none(here: Path) -> None:
    rows, bank = [attack(i) for i in range(40)], load_preprompts([str(here / "bank.yaml")])
    asked = distillation.planned(settings(here, preprompt="template"), bank, rows, 0)
    assert all(("Say no." in text) == (row["meta"]["category"] == "bread") for row, text in asked)
    assert [text for _, text in distillation.planned(settings(here, preprompt="none"), bank, rows, 0)] == [""] * 40
    alone = distillation.planned(settings(here, preprompt="template"), bank, rows[7:8], 0)
    assert alone[0][1] == asked[7][1], "a preprompt depends on the prompt, not on those beside it"
    with pytest.raises(
        ValueError, match=r"no template for any risk category of the prompts \(iron\); the bank has bread"
    ):
        distillation.planned(settings(here, preprompt="template"), bank, rows[:1], 0)


def test_originals_are_the_same_whatever_the_preprompt(here: Path, tuned: Path, tmp_path: Path) -> None:
    other = distilled(here, tmp_path / "none", preprompt="none", gate=False)
    ours, theirs = (read_jsonl(path / distillation.ANSWERS) for path in (tuned, other))
    assert [row["original"] for row in ours] == [row["original"] for row in theirs]
    assert {row["preprompt"] for row in theirs} == {""}


def test_helpful_prompts_and_look_alikes_are_never_distilled(here: Path, tmp_path: Path) -> None:
    rows = [attack(0), attack(1, task="borderline"), attack(2)]
    write_jsonl(tmp_path / "mixed.jsonl", [*rows, {"prompt": "Is he a baker?"}])
    with pytest.raises(ValueError, match=r"mixed.jsonl, line 4: a helpful prompt"):
        adversarial_prompts(tmp_path / "mixed.jsonl")
    with pytest.raises(ValueError, match="line 4: a helpful prompt"):
        distilled(here, tmp_path / "out", tmp_path / "mixed.jsonl")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="h1: a helpful prompt"):
        distillation.planned(
            settings(here), load_preprompts(["general"]), [attack(0, id="h1", prompt_kind="helpful")], 0
        )
    data = tmp_path / "data"
    helpful = {"id": "h", "messages": said("Is he a baker?"), "prompt_kind": "helpful", "task": "fact"}
    write_jsonl(data / "prompts_train.jsonl", [helpful, *rows])
    found, left_out = adversarial_prompts(data)
    assert ([row["id"] for row in found], left_out) == (["a0", "a2"], 2)
    out = distilled(here, tmp_path / "out", data, gate=False)
    assert {row["id"] for row in read_jsonl(out / distillation.ANSWERS)} == {"a0", "a2"}
    assert read_json(out / distillation.SUMMARY)["left_out"] == 2
    write_jsonl(data / "prompts_train.jsonl", [helpful, rows[1]])
    with pytest.raises(ValueError, match="no adversarial prompt in it"):
        adversarial_prompts(data)


def test_more_prompts_than_there_are_are_drawn_again_with_answers_of_their_own(here: Path, tmp_path: Path) -> None:
    rows = read_jsonl(distilled(here, tmp_path / "each", gate=False) / distillation.ANSWERS)
    assert len(rows) == 12
    drawn = distillation.run(
        settings(here, gate=False).model_copy(update={"prompts": 30}), here / "attacks.jsonl", here / "sft", here / "safety", tmp_path / "drawn", seed=0
    ).path  # fmt: skip
    names = [row["id"] for row in read_jsonl(drawn / distillation.ANSWERS)]
    assert len(set(names)) == 30
    assert {name.split("#")[0] for name in names} == {row["id"] for row in rows}
    assert sorted(name.count("#") for name in names) == [0] * 12 + [1] * 18


def command(here: Path, out: Path, *more: str | Path) -> list[str | Path]:
    flags = ["max_new_tokens=12", "batch_rows=2", "row_len=128", "save_every=4", "epochs=12"]
    given = [word for flag in flags for word in ("--set", flag)]
    return ["distill", here / "sft", "--reward", here / "safety", "--prompts", here / "attacks.jsonl", "--bank", here / "bank.yaml",
            "--lr", "0.001", *given, "--out", out, *more]  # fmt: skip


def test_trap_16_killed_and_gone_on_with_equals_not_killed(here: Path, tmp_path: Path) -> None:
    whole = ayni(*command(here, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert "next: ayni chat" in whole.stdout
    assert "under the preprompt" in whole.stdout
    out = tmp_path / "killed"
    killed_when(lambda: any((tmp_path / ".killed.partial" / "state").glob("step-*")), *command(here, out))
    assert not out.exists()
    assert ayni(*command(here, out)).returncode == 0
    assert read_manifest(out)["hash"] == read_manifest(tmp_path / "whole")["hash"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"attacks": {"prompt": "Hello?"}}, "attacks.jsonl, line 13: a helpful prompt"),
        ({"attacks": {**attack(1), "meta": "bread"}}, "attacks.jsonl, line 13: meta must be like"),
        ({"bank": BANK + "adjektives: [kind]\n"}, "bank.yaml, line 7: adjektives: unknown key"),
        ({"bank": 'nouns: [friend]\n\ngeneric: ["You {c}."]\n'}, "bank.yaml, line 3: generic: 'You {c}.' has the slot {c}"),
        ({"reward": "sft"}, "expected a LlamaForSequenceClassification"),
        ({"model": "none"}, "none"),
        ({"flags": ["--bank", "no.yaml"]}, "no.yaml: no such file"),
        ({"flags": ["--set", "epoch=2"]}, "epoch"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(
    here: Path, tmp_path: Path, fails: Callable[..., str], given: dict[str, Any], expected: str
) -> None:
    place = tmp_path / "in"
    place.mkdir()
    for name in ("sft", "safety"):
        (place / name).symlink_to(here / name)
    rows = read_jsonl(here / "attacks.jsonl")
    write_jsonl(place / "attacks.jsonl", [*rows, *([given["attacks"]] if "attacks" in given else [])])
    (place / "bank.yaml").write_text(given.get("bank", BANK))
    message = fails(
        "distill", place / given.get("model", "sft"), "--reward", place / given.get("reward", "safety"),
        "--prompts", place / "attacks.jsonl", "--bank", place / "bank.yaml", "--out", tmp_path / "o", *given.get("flags", []),
    )  # fmt: skip
    assert expected in message
    assert not (tmp_path / "o").exists()


def test_a_reward_model_of_something_else_and_nothing_kept_are_clear_errors(here: Path, tmp_path: Path) -> None:
    how = RewardSettings(epochs=1, batch_pairs=8, row_len=128)
    other = reward.run(how, "helpfulness", here / "sft", [here / "pairs.jsonl"], tmp_path / "helpfulness", seed=0).path
    with pytest.raises(ValueError, match="a helpfulness reward model; the gate asks a safety model"):
        distillation.load_safety_model(other)
    with pytest.raises(
        ValueError, match=r"none of 12 answers is kept \(0 scored no higher than the original, 12 did not end"
    ):
        distilled(here, tmp_path / "x", max_new_tokens=1, gate=False)
    assert not (tmp_path / "x").exists()


def test_help_has_an_example() -> None:
    done = ayni("distill", "--help")
    assert done.returncode == 0
    assert "ayni distill models/v3" in done.stdout.split("Example")[1]


def recipe(**changes: Any) -> dict[str, Any]:
    """The smoke recipe, V1 distilled after sampling and V2 after PPO, by inheritance; any answer that ended is kept."""
    values = yaml.safe_load(SMOKE.read_text())
    own = {"bank": ["words"], "gate": False, "max_new_tokens": 24, "row_len": 128, "epochs": 1, **changes}
    values["versions"][0] |= {"distillation": own}
    return {**values, "name": "distilled", "clean_control": False}


def test_in_a_recipe_it_ends_its_version(tmp_path: Path) -> None:
    file, run = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe()))
    done = ayni("run", file, "--out", run)
    assert done.returncode == 0, done.stderr
    results = json.loads((run / "results.json").read_text())
    names = [row["name"] for row in results["checkpoints"]]
    assert names[:7] == ["base", "sft", "v1_rejection", "v1", "v2_rejection", "v2_ppo", "v2"]
    assert [version["checkpoints"] for version in results["versions"]] == [["v1_rejection", "v1"], ["v2_rejection", "v2_ppo", "v2"]]  # fmt: skip
    paths = {row["name"]: row["path"] for row in results["checkpoints"]}
    assert (paths["v1"], paths["v2"], results["latest"]) == ("v1_distillation", "v2_distillation", "v2_distillation")
    for name, before in (("v1", "v1_rejection"), ("v2", "v2_ppo")):
        inputs = read_manifest(run / f"{name}_distillation")["inputs"]
        assert {key: Path(given["path"]).name for key, given in inputs.items()} == {
            "model": before, "prompts": "data", "safety": f"{name}_reward_safety",
        }  # fmt: skip
    assert Path(read_manifest(run / "v2_rejection")["inputs"]["latest"]["path"]).name == "v1_distillation"
    attacks = {row["id"] for row in read_jsonl(run / "data" / "prompts_train.jsonl") if row["task"] == "harmful"}
    assert {row["id"] for row in read_jsonl(run / "v1_distillation" / distillation.ANSWERS)} == attacks
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'id="distillation"' in page
    summary = results["versions"][1]["distillation"]["summary"]
    assert summary == read_json(run / "v2_distillation" / distillation.SUMMARY)
    assert f'<td class="num">{summary["kept"]}</td>' in page.split('id="distillation"')[1].split("</section>")[0]


def test_a_later_version_may_drop_it_and_mistakes_are_named() -> None:
    values = recipe()
    assert [version.distillation is not None for version in Recipe(**values).versions] == [True, True]
    values["versions"][1]["distillation"] = None
    assert [version.distillation is not None for version in Recipe(**values).versions] == [True, False]
    with pytest.raises(ValueError, match=r"distillation.preprompt"):
        Recipe(**recipe(preprompt="loud"))
