"""The lineage picture: the arrows of a longest way, boxes that do not lie on each other, every input in the table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ayni.report.lineage import BOX_H, BOX_W, Node, ancestors, arrows, artifacts, picture, table
from ayni.report.results import Run, read_run

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def run(make_run: MakeRun) -> Run:
    return read_run(make_run())


def node(name: str, *sources: str) -> Node:
    return Node(name, "stage", "0" * 64, 0, None, [(source, source, True) for source in sources])


def test_ancestors_are_what_the_last_model_was_made_of(run: Run) -> None:
    assert ancestors(artifacts(run), "v2_ppo") == {
        "data", "tokenizer", "base", "sft", "v1_preferences", "v1_reward_helpfulness", "v1_reward_safety",
        "v1_rejection", "v2_ppo",
    }  # fmt: skip


def test_an_arrow_that_a_longer_way_implies_is_left_out() -> None:
    nodes = {n.name: n for n in (node("a"), node("b", "a"), node("c", "a", "b"), node("d", "a", "c", "gone"))}
    assert arrows(nodes, set(nodes)) == [("a", "b"), ("b", "c"), ("c", "d")]


def test_the_same_answers_as_by_brute_force() -> None:
    """Transitive reduction of every graph on four nodes in a fixed order, against a search over all ways."""
    names = "abcd"
    pairs = list(itertools.combinations(names, 2))
    for chosen in itertools.product((False, True), repeat=len(pairs)):
        edges = {pair for pair, there in zip(pairs, chosen) if there}
        nodes = {n: node(n, *(a for a, b in edges if b == n)) for n in names}
        ways = [w for k in (3, 4) for w in itertools.combinations(names, k) if set(itertools.pairwise(w)) <= edges]
        assert set(arrows(nodes, set(names))) == edges - {(way[0], way[-1]) for way in ways}


def test_a_path_inside_an_artifact_is_that_artifact(run: Run) -> None:
    inputs = artifacts(run)["tokenizer"].inputs
    assert inputs == [("corpus", "data", True)]


def test_boxes_stand_apart_and_inside_the_picture(run: Run) -> None:
    drawn = picture(run, artifacts(run))
    assert drawn is not None
    places = [(box["x"], box["y"]) for box in drawn["boxes"]]
    assert len(places) == 9
    for (x0, y0), (x1, y1) in itertools.combinations(places, 2):
        assert abs(x0 - x1) >= BOX_W or abs(y0 - y1) >= BOX_H
    assert max(x for x, _ in places) + BOX_W <= drawn["width"]
    assert max(y for _, y in places) + BOX_H <= drawn["height"]
    assert [band["name"] for band in drawn["bands"]] == ["from raw text", "v1", "v2"]
    assert [box["name"] for box in drawn["boxes"] if box["last"]] == ["v2_ppo"]
    assert ("v1_rejection", "v2_ppo") in {(a["from"], a["to"]) for a in drawn["arrows"]}


def test_the_table_has_every_artifact_in_the_order_of_making(run: Run) -> None:
    rows = {row["name"]: row for row in table(artifacts(run))}
    assert {"sft_clean", "eval/v2"} <= set(rows)
    assert list(rows)[:3] == ["data", "tokenizer", "sft"]  # as timings.json has them
    assert rows["data"]["size"] == "1.2 MB"
    assert rows["data"]["seconds"] == 8.2
    assert [given["source"] for given in rows["v1_rejection"]["inputs"]] == [
        "v1_reward_helpfulness", "sft", "data", "v1_reward_safety", "sft",
    ]  # fmt: skip


def test_an_input_that_was_built_anew_is_called_so(make_run: MakeRun) -> None:
    directory = make_run()
    path = directory / "base" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hash": "f" * 64}))
    inputs = {role: same for role, _, same in artifacts(read_run(directory))["sft"].inputs}
    assert inputs == {"chats": True, "model": False}
