"""A recipe as a whole, and a run at work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ayni.cli.app import app
from ayni.cli.flags import done
from ayni.recipe import load_recipe


@app.command(epilog="Example: ayni run recipes/tiny.yaml")
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe file; see recipes/.")],
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/NAME.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Overrides the recipe's seed.")] = None,
) -> None:
    """Run a whole recipe, or go on with one that was stopped."""
    settings = load_recipe(recipe)
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    directory = out or Path("runs") / settings.name
    from ayni import run as recipe_run

    recipe_run.run(settings, directory)


@app.command(
    epilog="Examples: ayni watch runs/tiny | ayni watch runs/tiny --once | ayni watch runs/tiny --tensorboard runs/tiny/tensorboard"
)
def watch(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, as `ayni run` names it.")],
    once: Annotated[bool, typer.Option("--once", help="Print how it stands now, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    tensorboard: Annotated[
        Path | None,
        typer.Option("--tensorboard", metavar="DIR", help="Event files for TensorBoard follow the run here."),
    ] = None,
) -> None:
    """Watch a run at work: stages, curves, speed, disk. Ends with the run; Ctrl-C leaves the run alone."""
    from ayni.report import watch as live

    live.watch(directory, once=once, every=every, tensorboard=tensorboard)


@app.command(epilog="Example: ayni tensorboard runs/tiny, then tensorboard --logdir runs/tiny/tensorboard")
def tensorboard(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, done or at work.")],
    out: Annotated[Path | None, typer.Option("--out", help="Default: RUN/tensorboard.")] = None,
) -> None:
    """Turn a run's metrics logs into TensorBoard event files, one per stage."""
    from ayni.report import events

    target = out or directory / "tensorboard"
    rows = events.convert(directory, target)
    done(target, f"tensorboard --logdir {target}   ({len(rows)} stages, {sum(rows.values())} rows)")
