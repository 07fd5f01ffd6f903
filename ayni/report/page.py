"""report.html: one file that opens from disk, made of a run directory's files and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ayni.artifacts import read_json, write_atomically
from ayni.report import distillation, figures, ghost, lineage
from ayni.report import results as read
from ayni.report.samples import sample_groups, tone
from ayni.report.study import draw_panel
from ayni.report.version_page import ppo_plots, version_page
from ayni.report.versions import belongs_to, version_names, versions
from ayni.telemetry import clock

Row = dict[str, Any]


def build(run_dir: Path) -> Path:
    """Write run_dir/report.html from results.json and, where present, timings, metrics logs and samples."""
    run = read.read_run(Path(run_dir))
    names, nodes = version_names(run), lineage.artifacts(run)
    curves = {stage: rows for stage, rows in run.curves.items() if not belongs_to(stage, names)}  # no version's own
    version_pages = [version_page(run, version, i) for i, version in enumerate(versions(run), start=1)]
    page = _environment().get_template("page.html.j2").render(
        run=run, name=run.name, sentences=read.headline(run), tiles=tiles(run), results=results_table(run.checkpoints),
        other=other_figures(run.checkpoints), versions=versions_plot(run), pretraining=pretraining_plots(curves),
        finetuning=finetuning_plots(curves), rewards=reward_plots(run), gates=gates(run), domains=domains(run), annotators=annotators(run),
        ppo=other_ppo(curves), ceiling=ceiling_plot(run), ghost=ghost_plots(run), distillation=distillation.tables(run.results), facts=facts_tables(run), samples=sample_groups(run),
        timings=timing_rows(run), settings=settings_text(run), commands=commands(run),
        version_pages=version_pages, pages=pages(version_pages, bool(nodes)), artifacts=lineage.table(nodes),
        lineage=lineage.picture(run, nodes), box_w=lineage.BOX_W, box_h=lineage.BOX_H,
    )  # fmt: skip
    path = run.directory / "report.html"
    write_atomically(path, page)
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ayni.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(
        shown=read.shown, interval=read.interval, clock=clock, gibibytes=read.gibibytes, plain=read.plain
    )
    environment.filters["words"] = lambda text: str(text).replace("_", " ")
    environment.filters["tone"] = tone
    environment.filters["unbroken"] = lambda text: text.replace("–", "\u2060–\u2060")  # no line ends inside an interval
    return environment


def _plot(name: str, draw: Any, size: tuple[float, float] = (4.9, 3.2)) -> Markup:
    return Markup(figures.svg(name, draw, size))


def pages(version_pages: list[Row], with_lineage: bool) -> list[Row]:
    """The tabs: the whole run, each version, the lineage."""
    found = [{"id": "overview", "name": "Overview"}, *({"id": v["id"], "name": v["name"]} for v in version_pages)]
    return found + ([{"id": "lineage", "name": "Lineage"}] if with_lineage else [])


def tiles(run: read.Run) -> list[Row]:
    """The few figures that say most, before (SFT) and after (the last version)."""
    line = read.trained(run.checkpoints)
    before, after = read.before(run.results), line[-1] if line else None
    if after is None:
        return []
    rows = []
    for name in ("helpful_win_vs_sft", "facts_right", "gold_overlap", "violation", "false_refusal"):
        found = read.figure(after, name)
        if found:
            old = read.figure(before, name) if before and before is not after and name != "helpful_win_vs_sft" else None
            rows.append({"title": read.BY_NAME[name].title.removesuffix(" %"), "figure": found, "before": old})
    return [{**row, "name": after["name"]} for row in rows[:4]]


def results_table(checkpoints: list[Row]) -> Row:
    """Columns and rows of the main table, rows in three groups: the main line, the control arm, constant policies."""
    metrics = read.columns(checkpoints)
    best = {metric.name: read.best_names(checkpoints, metric) for metric in metrics}
    groups = []
    for kind in read.KINDS:
        rows = [
            {
                "name": checkpoint["name"],
                "cells": [
                    {"figure": read.figure(checkpoint, metric.name), "best": checkpoint["name"] in best[metric.name]}
                    for metric in metrics
                ],
            }
            for checkpoint in checkpoints
            if read.kind_of(checkpoint) == kind
        ]
        if rows:
            groups.append({"kind": kind, "rows": rows})
    return {"metrics": metrics, "groups": groups}


def other_figures(checkpoints: list[Row]) -> Row:
    """Every figure of results.json that has no column above and no 2 x 2 of its own, a row per metric."""
    known = {metric.name for metric in read.METRICS}
    names = [name for checkpoint in checkpoints for name in checkpoint["metrics"]]
    rest = [n for n in dict.fromkeys(names) if n not in known and not read.FACTS_2X2.fullmatch(n)]
    rows = [{"name": name, "cells": [read.figure(checkpoint, name) for checkpoint in checkpoints]} for name in rest]
    return {"names": [c["name"] for c in checkpoints], "rows": [row for row in rows if any(row["cells"])]}


def versions_plot(run: read.Run) -> Markup | None:
    shown = [c for c in run.checkpoints if read.figure(c, "helpful_win_vs_sft") and read.figure(c, "violation")]
    if len([c for c in shown if read.kind_of(c) == "trained"]) < 2:
        return None
    draw = lambda axes, colours: figures.draw_versions(axes, colours, run.checkpoints)  # noqa: E731
    return _plot("versions", draw, (6.2, 4.3))


def is_ppo(rows: list[Row]) -> bool:
    return any("kl_k1" in row for row in rows)


def is_pretraining(stage: str, rows: list[Row]) -> bool:
    return stage in ("base", "pretrain") or any(row.get("perplexity") for row in rows)


def pretraining_plots(curves: dict[str, list[Row]]) -> list[Markup]:
    plots: list[Markup] = []
    for stage, rows in curves.items():
        if not is_pretraining(stage, rows):
            continue
        if any(row.get("loss") is not None for row in rows):
            draw = partial(figures.draw_loss, rows=rows, title="Training loss (nats per token)")
            plots.append(_plot(f"loss{len(plots)}", draw))
        if any(row.get("perplexity") for row in rows):
            plots.append(_plot(f"perplexity{len(plots)}", partial(figures.draw_perplexity, rows=rows)))
    return plots


def finetuning_plots(curves: dict[str, list[Row]]) -> list[Markup]:
    """A small loss curve for each stage that is neither pretraining nor PPO."""
    plots: list[Markup] = []
    for stage, rows in curves.items():
        if is_ppo(rows) or is_pretraining(stage, rows) or len(figures.points(rows, "loss")[1]) < 2:
            continue
        draw = partial(figures.draw_loss, rows=rows, title=stage, colour=len(plots))
        plots.append(_plot(f"fit{len(plots)}", draw, (3.6, 2.3)))
    return plots


def reward_plots(run: read.Run) -> list[Markup]:
    models = run.results.get("reward_models") or []
    plots = []
    if any(model.get("accuracy_by_strength") for model in models):
        plots.append(_plot("strength", partial(figures.draw_by_strength, models=models), (4.9, 3.7)))
    kinds = {row["kind"] for model in models for row in model.get("accuracy_by_kind") or []}
    if kinds:
        size = (4.9, max(3.7, 1.6 + 0.32 * len(kinds)))
        plots.append(_plot("kind", partial(figures.draw_by_kind, models=models), size))
    return plots


def gates(run: read.Run) -> list[Row]:
    return [model for model in run.results.get("reward_models") or [] if model.get("gate")]


def domains(run: read.Run) -> Row | None:
    """Accuracy on held-out pairs of the own and of the other domain (Table 7)."""
    models = run.results.get("reward_models") or []
    heads = list(dict.fromkeys(row["domain"] for model in models for row in model.get("accuracy_by_domain") or []))
    rows = []
    for model in models:
        found = {row["domain"]: row for row in model.get("accuracy_by_domain") or [] if row.get("value") is not None}
        rows.append({"name": model["name"], "cells": [found.get(head) for head in heads]})
    return {"heads": heads, "rows": rows} if heads else None


def annotators(run: read.Run) -> Row | None:
    """results.json's free-form `annotators`: either name -> figures, or figures alone."""
    found = run.results.get("annotators")
    if not found:
        return None
    nested = {name: row for name, row in found.items() if isinstance(row, dict) and "value" not in row}
    alone = {name: row for name, row in found.items() if name not in nested}
    heads = list(dict.fromkeys(key for row in nested.values() for key in row))
    rows = [{"name": name, "cells": [read.plain(row.get(key)) for key in heads]} for name, row in nested.items()]
    return {"heads": heads, "rows": rows, "alone": {name: read.plain(row) for name, row in alone.items()}}


def other_ppo(curves: dict[str, list[Row]]) -> list[Row]:
    """PPO beside the versions, a block of panels each."""
    found: list[Row] = []
    for stage, rows in curves.items():
        if is_ppo(rows) and (drawn := ppo_plots(rows, partial(_panel, f"ppo-{len(found)}"))):
            found.append({"stage": stage, **drawn})
    return found


def _panel(prefix: str, name: str, draw: Any, size: tuple[float, float]) -> Markup:
    return _plot(f"{prefix}-{name}", draw, size)


def ceiling_plot(run: read.Run) -> Markup | None:
    found = read.ceiling_points(run.results)
    return _plot("ceiling", partial(figures.draw_ceiling, found=found)) if len(found) > 1 else None


def ghost_plots(run: read.Run) -> list[Markup]:
    """Ghost Attention turn by turn, a panel for each group of constraints, and attention to the instruction."""
    found = run.results.get("ghost")
    if not found:
        return []
    looked = run.directory / found["evaluation"] / ghost.ATTENTION
    panels = ghost.kept_panels(found["kept"]) + ([ghost.attention_panel(read_json(looked))] if looked.is_file() else [])
    return [_plot(f"ghost{i}", partial(draw_panel, panel=panel)) for i, panel in enumerate(panels)]


def facts_tables(run: read.Run) -> list[Row]:
    """A 2 x 2 for SFT, the last version and the control arm: people seen or unseen x phrasings seen or unseen."""
    line = [c for c in read.trained(run.checkpoints) if c["name"] != "base"]
    chosen = line[:1] + line[1:][-1:] + [c for c in run.checkpoints if read.kind_of(c) == "control"]
    return [{"name": c["name"], "cells": cells} for c in chosen if (cells := read.facts_2x2(c))]


def timing_rows(run: read.Run) -> Row | None:
    if not run.timings:
        return None
    longest = max(stage["seconds"] for stage in run.timings) or 1
    rows = [{**stage, "share": 100 * stage["seconds"] / longest} for stage in run.timings]
    return {"rows": rows, "total": sum(stage["seconds"] for stage in run.timings)}


def settings_text(run: read.Run) -> str:
    settings = run.results.get("settings")
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True) if settings else ""


def commands(run: read.Run) -> list[tuple[str, str]]:
    """(what it does, the command), for this run's own paths."""
    last = read.trained(run.checkpoints)[-1:]
    found = [("Talk to the last version", f"ayni chat {run.directory}")]
    if last and last[0].get("path"):
        model = run.directory / last[0]["path"]
        found.append(
            ("Fine-tune it on your own chats", f"ayni sft --model {model} --data chats.jsonl --out models/mine")
        )
    return found
