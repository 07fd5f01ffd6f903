"""The studies of RLHF: their arithmetic against naive loops, and all of them once in small."""

import json
from pathlib import Path

import numpy as np
import pytest

from ayni.artifacts import read_manifest
from ayni.scoring.reward import load_reward_models
from ayni.studies import catalogue
from ayni.studies.lab import Lab, load_scale
from ayni.studies.paired import Outcomes, difference
from ayni.studies.rlhf import carry_over, chain, ppo_or_dpo
from ayni.studies.rlhf.contrasts import contrast, win_share
from ayni.studies.rlhf.sampled import rewards_of_texts
from ayni.studies.rlhf.temperature import peak
from ayni.studies.study import Outcome
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.sources import read_jsonl, read_prompts
from ayni.text.tokenizer import load_tokenizer

from .in_small import check_result, first_lab, run_in_small

NAMES = catalogue.BY_GROUP["rlhf"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every study of the group in small, one seed."""
    return run_in_small(NAMES, tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def lab(work: Path) -> Lab:
    """The seed's models as the studies left them."""
    return first_lab(work)


@pytest.mark.parametrize("name", NAMES)
def test_every_study_gives_a_result(work: Path, name: str) -> None:
    check_result(work, name, "rlhf")


def test_studies_share_their_models(lab: Lab) -> None:
    """No stage but the arms' own was run twice: one base, SFT on two kinds of demonstrations, V1..V3."""
    made = [path.name.rpartition("-")[0] for path in lab.directory.iterdir() if path.is_dir()]
    assert made.count("data") == made.count("base") == made.count("batches") == 1
    assert made.count("sft") == 4  # noisy and clean, each with its early variant
    assert made.count("preferences") == 4  # three rounds; the first of the clean model
    assert made.count("reward-helpfulness") == 5  # as many, and the one model of `gate`


def test_a_version_is_made_from_what_came_before(lab: Lab) -> None:
    begin = chain.start(lab)
    models = chain.versions(lab, begin, 3)
    assert len(set(models)) == 3
    for number, model in enumerate(models):
        by = chain.scorers(lab, begin, models[:number])
        inputs = {name: (model / entry["path"]).resolve() for name, entry in read_manifest(model)["inputs"].items()}
        assert inputs["latest"] == (models[number - 1] if number else begin.sft).resolve()
        assert inputs["start"] == begin.sft.resolve()
        assert inputs["helpfulness"] == by.helpfulness.resolve()
        trained_on = read_manifest(by.helpfulness)["inputs"]
        assert sum(name.startswith("preferences") for name in trained_on) == number + 1


def test_only_the_arm_with_earlier_samples_has_them(lab: Lab) -> None:
    begin = chain.start(lab)
    batches = lab.make("batches", carry_over.deal, begin.data)
    dealt = [{row["task"] for row in read_prompts(batches / f"batch-{n}.jsonl")} for n in (1, 2, 3)]
    assert dealt == [set(tasks) for tasks in carry_over.BATCHES]
    third = [m for m in map(read_manifest, lab.directory.glob("rejection-*")) if m["settings"]["version"] == 3]
    third = [m for m in third if "batch-3" in m["inputs"]["prompts"]["path"]]
    assert sorted("earlier 2" in m["inputs"] for m in third) == [False, False, True]
    epochs = [m["settings"]["epochs"] for m in third if "earlier 2" not in m["inputs"]]
    assert max(epochs) == 3 * min(epochs)


def outcomes(seeds: int = 2) -> Outcomes:
    rng = np.random.default_rng(0)
    arms = ("a", "b", "c", "d")
    return Outcomes(
        {
            arm: {
                seed: Outcome({"m": {f"p{i}": float(rng.integers(3)) for i in range(20) if (i + seed) % (k + 3)}})
                for seed in range(seeds)
            }
            for k, arm in enumerate(arms)
        }
    )


def test_a_contrast_is_the_mean_over_seeds_of_paired_sums() -> None:
    some = outcomes()
    terms = [(1.0, "m", "a"), (-1.0, "m", "b"), (-1.0, "m", "c"), (1.0, "m", "d")]
    naive, n = [], 0
    for seed in some.seeds:
        a, b, c, d = (some.by[arm][seed].values["m"] for arm in "abcd")
        sums = [a[p] - b[p] - c[p] + d[p] for p in a if p in b and p in c and p in d]
        naive.append(sum(sums) / len(sums))
        n += len(sums)
    found = contrast(some, terms, "x")
    assert (found.value, found.n) == (pytest.approx(sum(naive) / len(naive)), n)
    two = contrast(some, terms[:2], "x")
    assert (two.value, two.low, two.high) == pytest.approx(
        [getattr(difference(some, "m", "a", "b"), f) for f in ("value", "low", "high")]
    )


def test_a_win_share_counts_ties_half() -> None:
    some = outcomes()
    naive = []
    for seed in some.seeds:
        a, b = (some.by[arm][seed].values["m"] for arm in "ab")
        shared = [p for p in a if p in b]
        naive.append(sum((a[p] > b[p]) + (a[p] == b[p]) / 2 for p in shared) / len(shared))
    assert win_share(some, "m", "a", "b").value == pytest.approx(sum(naive) / len(naive))


def test_the_peak_of_a_parabola_is_found_between_the_points() -> None:
    x = (0.4, 0.6, 0.8, 1.0, 1.2)
    assert peak(x, np.array([-((t - 0.87) ** 2) for t in x])) == pytest.approx(0.87)
    assert peak(x, np.array(x)) == 1.2  # rising to the end
    assert peak(x, -np.array(x)) == 0.4
    assert peak(x, np.zeros(5)) == 0.4


def test_texts_are_scored_one_to_a_prompt(lab: Lab) -> None:
    begin = chain.start(lab)
    rows = read_prompts(begin.data / "prompts_eval.jsonl")[:6]
    by, texts = chain.scorers(lab, begin), [f"Answer number {i}." for i in range(6)]
    found = rewards_of_texts(lab, by, rows, texts)
    models, tokenizer = load_reward_models(by), load_tokenizer(by.helpfulness)
    for i, (row, text) in enumerate(zip(rows, texts)):
        prompt = encode_prompt(tokenizer, row["messages"])
        whole = encode_chat(tokenizer, [*row["messages"], {"role": "assistant", "content": text}])[0]
        alone = models.helpfulness.score([prompt], [whole[len(prompt) :]], 256)
        assert float(found.helpfulness[i]) == pytest.approx(float(alone[0]), abs=1e-4)


def test_kl_study_reads_every_evaluation_of_ppo(work: Path, lab: Lab) -> None:
    outcome = json.loads((work / "smoke/outcomes/kl/0-seed-0.json").read_text(encoding="utf-8"))
    prompts = {row["id"] for row in read_jsonl(chain.start(lab).data / "prompts_dev.jsonl")}
    assert outcome["facts"]["steps"] == [0, 2]
    for name in ("reward", "guard", "utility", "kl"):
        for step in (0, 2):
            assert set(outcome["values"][f"{name} {step}"]) == prompts
    assert max(map(abs, outcome["values"]["kl 0"].values())) < 1e-4  # the policy is where it starts


def test_dpo_has_about_the_compute_of_reward_models_and_ppo(tmp_path: Path) -> None:
    """At full scale: 2,400 pairs, a tenth held out."""
    lab = Lab(tmp_path, 0, "full", load_scale("full"))
    ppo, dpo = (ppo_or_dpo.passes(lab, arm, 2160) for arm in ("ppo", "dpo"))
    assert dpo == 2160 * 2 * (4 * 3 + 1)
    assert ppo == 2160 * 2 * 7 + 20 * 128 * 13
    assert 0.8 < dpo / ppo < 1.2
