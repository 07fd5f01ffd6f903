"""The last screen: the figures of results.json, at 110 columns and at 80."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ayni.report import last_screen, print_samples

MakeRun = Callable[..., Path]


def drawn(run: Path, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in last_screen(run):
        console.print(part)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 110])
def test_every_figure_is_whole_and_every_row_one_line(make_run: MakeRun, width: int) -> None:
    run = make_run()
    lines = drawn(run, width)
    results = json.loads((run / "results.json").read_text())
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    for checkpoint in results["checkpoints"]:
        row = next(line for line in lines if line[:13].strip() == checkpoint["name"].replace("_", " "))
        m = checkpoint["metrics"]
        win = m["helpful_win_vs_sft"]
        percent = lambda figure: f"{100 * figure:.1f}"  # noqa: E731
        expected = [percent(m["facts_right"]["value"]), percent(m["truthful"]["value"]), percent(win["value"])]
        expected += [f"[{percent(win['low'])},", f"{percent(win['high'])}]"]
        expected += [
            percent(m[name]["value"]) for name in ("correct_win_vs_sft", "violation", "false_refusal", "toxicity")
        ]
        expected += [f"{m['mean_tokens']['value']:.1f}", "–" if m["kl"]["value"] is None else f"{m['kl']['value']:.2f}"]
        assert row.removeprefix(checkpoint["name"].replace("_", " ")).split() == expected


def test_main_line_control_arm_constant_policies_in_this_order(make_run: MakeRun) -> None:
    names = ("base", "sft ", "v1", "v2", "sft clean", "always refuse", "always polite", "always long")
    rows = [line for line in drawn(make_run(), 110) if line.startswith(names)]
    assert [line[:13].strip() for line in rows] == [name.strip() for name in names]


def test_ceiling_report_and_commands(make_run: MakeRun) -> None:
    run = make_run()
    text = "\n".join(drawn(run, 300))
    assert "Best-of-K ceiling by ground truth: K=1 61.2%, K=2 70.1%, K=4 76.3%, K=8 80.7%" in text
    assert str(run / "report.html") in text
    assert f"ayni chat {run}" in text
    assert f"ayni sft --model {run / 'v2'} --data chats.jsonl --out models/mine" in text


@pytest.mark.parametrize("width", [80, 110])
def test_real_model_run_hides_what_it_cannot_measure(make_run: MakeRun, width: int) -> None:
    def change(results: dict[str, Any]) -> None:
        del results["best_of_k"]
        for checkpoint in results["checkpoints"]:
            for name in ("facts_right", "truthful"):
                checkpoint["metrics"][name].update(value=None, low=None, high=None)
            checkpoint["metrics"]["gold_overlap"] = {
                "value": 0.314,
                "low": 0.29,
                "high": 0.33,
                "n": 90,
                "unit": "share",
            }

    lines = drawn(make_run(change), width)
    text = "\n".join(lines)
    assert "facts" not in text
    assert "truth" not in text.replace("ground truth", "")
    assert "ceiling" not in text
    assert "gold" in text
    assert next(line for line in lines if line.startswith("v2")).split()[1] == "31.4"


def test_print_samples_before_and_after(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    path = run / "samples.json"
    samples = json.loads(path.read_text())
    samples["rows"][0]["answers"]["sft"] = "an answer with [bold]markup[/bold]"
    path.write_text(json.dumps(samples))
    print_samples(run, n=20)
    out = capsys.readouterr().out
    heads = [line for line in out.splitlines() if line[:1].isdigit()]
    assert len(heads) == 20
    assert {head.split(". ")[1].strip() for head in heads} == {
        "facts",
        "sums",
        "small talk",
        "system instruction",
        "adversarial",
        "borderline",
    }
    assert "[bold]markup[/bold]" in out
    assert "[harmful]" in out or "[wrong]" in out
    assert not any(line.startswith("base ") for line in out.splitlines())


def test_fetched_chat_model_is_the_before(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    print_samples(make_run(lambda results: results["settings"].update(fetch={"source": "file:model"})), n=3)
    names = [
        line.split()[0]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("base ", "sft ", "v1 ", "v2 "))
    ]
    assert names == ["base", "sft", "v2"] * 3
