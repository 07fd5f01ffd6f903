"""Banks as YAML files of the user's: read strictly, every mistake told by file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ayni.config import Settings

B = TypeVar("B", bound=Settings)
# In C where it is built so: a bank may hold thousands of entries. Both make plain values alone.
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def text_of(path: Path) -> str:
    """The file's text; ValueError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from None


def parse(text: str, name: str, kind: type[B], example: str) -> B:
    """The bank in a file called `name`. `example`: the file at whose head the keys are explained."""
    try:
        root = yaml.compose(text, Loader=SAFE_LOADER)
        values = yaml.load(text, Loader=SAFE_LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(values, dict) or root is None:
        raise ValueError(f"{name}: expected a mapping with the keys {', '.join(kind.model_fields)}")
    try:
        return kind(**values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(name, root, m, example) for m in error.errors()[:5])) from None
    except TypeError:  # a key that is not text
        raise ValueError(
            f"{name}: expected the keys {', '.join(kind.model_fields)}, found {list(values)!r:.80}"
        ) from None


def _explain(name: str, root: yaml.Node, mistake: Any, example: str) -> str:
    """One line for one pydantic error: file, line, key, and what was expected."""
    node, line = root, root.start_mark.line
    for key in mistake["loc"]:
        if isinstance(node, yaml.MappingNode):
            pair = next(((at, value) for at, value in node.value if at.value == str(key)), None)
            if pair is None:
                break
            node, line = pair[1], pair[0].start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node, line = node.value[key], node.value[key].start_mark.line
    where = ".".join(map(str, mistake["loc"])) or "the bank"
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        message = f"unknown key; a bank's keys stand at the head of {example}"
    return f"{name}, line {line + 1}: {where}: {message}"
