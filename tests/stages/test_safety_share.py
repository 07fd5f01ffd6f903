"""SFT on a share of the safety demonstrations (paper 4.2.3): the rest stays, shares are nested, the seed decides."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ayni.config import OptimizerSettings, SFTSettings
from ayni.stages import sft
from ayni.stages.sft import with_safety_share
from ayni.text.sources import write_jsonl
from tests.stages.untrained import untrained

SHARES = (0.0, 0.01, 0.1, 0.25, 0.5, 1.0)


def chat(number: int) -> dict[str, Any]:
    kind = {"prompt_kind": "safety" if number % 3 == 0 else "helpful"} if number % 7 else {}
    return {
        "messages": [{"role": "user", "content": f"Is he {number}?"}, {"role": "assistant", "content": "Yes."}],
        **kind,
    }


ROWS = [chat(i) for i in range(700)]
SAFETY = [row for row in ROWS if row.get("prompt_kind") == "safety"]
OTHERS = [row for row in ROWS if row.get("prompt_kind") != "safety"]


@pytest.mark.parametrize("share", SHARES)
def test_the_share_of_safety_is_kept_and_every_other_row(share: float) -> None:
    kept = with_safety_share(ROWS, share, 0, "chats.jsonl")
    assert [row for row in kept if row.get("prompt_kind") != "safety"] == OTHERS
    assert sum(row.get("prompt_kind") == "safety" for row in kept) == round(share * len(SAFETY))
    order = [ROWS.index(row) for row in kept]
    assert order == sorted(order)


def test_shares_are_nested_and_the_seed_decides() -> None:
    for seed in range(3):
        sets = [{row["messages"][0]["content"] for row in with_safety_share(ROWS, share, seed, "")} for share in SHARES]
        for smaller, larger in pairwise(sets):
            assert smaller < larger
    halves = [with_safety_share(ROWS, 0.5, seed, "") for seed in (0, 0, 1)]
    assert halves[0] == halves[1] != halves[2]


def test_bad_shares_are_clear_errors() -> None:
    with pytest.raises(
        ValueError, match=r'chats.jsonl: safety_share 0.1, but no chat is tagged "prompt_kind": "safety"'
    ):
        with_safety_share(OTHERS, 0.1, 0, "chats.jsonl")
    assert with_safety_share(OTHERS, 1.0, 0, "chats.jsonl") == OTHERS
    for share in (-0.1, 1.5):
        with pytest.raises(ValidationError, match="safety_share"):
            SFTSettings(safety_share=share)


def test_the_stage_trains_on_the_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = untrained(tmp_path, ["Is he 0 1 2 3 4 5 6 7 8 9? Yes. " * 9], vocab_size=290)
    write_jsonl(tmp_path / "chats.jsonl", ROWS)
    counts: list[int] = []
    fine_tune = sft.fine_tune

    def counted(work: Path, title: str, policy: Any, tokenizer: Any, samples: Any, *rest: Any, **how: Any) -> None:
        counts.append(len(samples))
        fine_tune(work, title, policy, tokenizer, samples[:4], *rest, **how)

    monkeypatch.setattr(sft, "fine_tune", counted)
    hashes = set()
    for share in (0.25, 1.0):
        settings = SFTSettings(epochs=1, row_len=64, safety_share=share, optimizer=OptimizerSettings(lr=1e-3))
        made = sft.run(settings, start, tmp_path / "chats.jsonl", tmp_path / f"sft-{share}", seed=0)
        hashes.add(made.manifest["fingerprint"])
    assert counts == [len(OTHERS) + round(0.25 * len(SAFETY)), len(ROWS)]
    assert len(hashes) == 2
