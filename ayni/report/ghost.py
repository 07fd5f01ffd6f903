"""Ghost Attention's figures from an evaluation's files alone: what is kept turn by turn, and attention to the instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.artifacts import read_json
from ayni.report.study import draw

TURNS, ATTENTION = "turns.json", "attention.json"


def picture(evaluation: Path, out: Path) -> Path:
    """The SVG `out`, from the directory of an evaluation turn by turn."""
    kept, attention = read_json(evaluation / TURNS), read_json(evaluation / ATTENTION)
    draw({"study": "ghost", "panels": [*kept_panels(kept), attention_panel(attention)]}, out)
    return out


def kept_panels(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """A panel for each group of constraints: the arms' shares by turn, the paper's beside them."""
    groups = list(next(iter(kept["arms"].values()), {}))
    return [
        {
            **_panel(f"{group} constraints", "share of dialogues that keep it"),
            "series": [
                {
                    **_line(arm, kept["turns"], [point["value"] for point in of[group]]),
                    "low": [point["low"] for point in of[group]],
                    "high": [point["high"] for point in of[group]],
                }
                for arm, of in kept["arms"].items()
            ]
            + [
                {
                    **_line(f"{arm}, Table 30", [turn for turn, _ in points], [value for _, value in points]),
                    "paper": True,
                }
                for arm, points in kept["paper"].items()
                if group == "trained"
            ],
        }
        for group in groups
    ]


def attention_panel(attention: dict[str, Any]) -> dict[str, Any]:
    """Figure 10: attention from each turn's answer to the instruction, before and after."""
    return {
        **_panel("attention to the instruction", "share of attention"),
        "series": [
            _line(f"{arm}, {word}", attention["turns"], of[key])
            for arm, of in attention["arms"].items()
            for key, word in (("strongest", "strongest head"), ("mean", "mean of heads"))
        ],
        "log_y": True,
    }


def _panel(title: str, y_label: str) -> dict[str, Any]:
    return {"title": title, "x_label": "turn", "y_label": y_label, "kind": "lines", "log_x": False, "log_y": False}


def _line(name: str, x: list[Any], y: list[Any]) -> dict[str, Any]:
    return {"name": name, "x": x, "y": y, "low": None, "high": None, "paper": False}
