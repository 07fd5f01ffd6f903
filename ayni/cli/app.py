"""The command line itself: mistakes a user can make end in one message on standard error and exit code 2."""

from __future__ import annotations

import errno
import os
import signal
import sys

import typer
from safetensors import SafetensorError

app = typer.Typer(
    name="ayni",
    help="The Llama 2 recipe as working software: raw text in, an aligned, safety-tuned chat model out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command line; a mistake a user can make ends in one message on standard error and exit code 2."""
    signal.signal(signal.SIGINT, _stopped)
    try:
        app()
    except SystemExit as end:
        if not end.code and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from ayni.train.mesh import leave

            leave()
        raise
    except (ValueError, ImportError, SafetensorError) as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            _fail(
                f"{error.filename or 'output'}: the disk is full; what was published stays. Free some room and run the same command again"
            )
        if error.filename is not None:
            _fail(f"{error.filename}: {error.strerror}")
        raise


def _stopped(*_: object) -> None:
    """Ctrl-C. Whatever stands on disk stands whole, so there is nothing to clear up."""
    print(
        "\nstopped; the same command goes on from the last saved state, or begins anew where none was saved",
        file=sys.stderr,
    )
    os._exit(130)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
