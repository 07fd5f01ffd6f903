"""The plug-in table: names that a recipe may use for data sources, annotators and judges, an audit for its scorers.

The table is Python's own entry points (pyproject.toml, groups `ayni.data`, `ayni.annotators`, `ayni.judges`,
`ayni.attacks`, `ayni.toxicity`, `ayni.languages`), so that a user's package adds an annotator without touching Ayni, and nothing in Ayni knows the embedded world by name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any


def plugin(group: str, name: str) -> Callable[..., Any]:
    """The function behind `name` in `group` ("data", "annotators", ...); options it does not take are a ValueError."""
    known = {entry.name: entry for entry in entry_points(group=f"ayni.{group}")}
    if name not in known:
        raise ValueError(
            f"no {group} plug-in is called {name!r}; known: {', '.join(sorted(known)) or 'none'}. "
            f"Register one under the entry-point group 'ayni.{group}' of an installed package"
        )
    function = known[name].load()

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        try:
            inspect.signature(function).bind(*arguments, **options)
        except TypeError as error:
            takes = ", ".join(inspect.signature(function).parameters)
            raise ValueError(f"{group} plug-in {name!r}: {error}; it takes {takes}") from None
        return function(*arguments, **options)

    return checked
