"""Reading the user's files: raw text, chats, preferences, ratings, prompts; JSON lines (also .gz), Parquet, plain text, folders of them.

Every mistake is one ValueError that names the file, the line, what was expected and what to do.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from ayni import telemetry
from ayni.text.dialogue import Message, check_messages
from ayni.text.judgements import from_judgement, is_judgement

Row = dict[str, Any]
TEXT_SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
ROW_SUFFIXES = TEXT_SUFFIXES[1:]
LONG_DOCUMENT = 1_000_000  # characters: a longer .txt is cut at the next blank line, so that memory stays small
PROMPT_KINDS = ("helpful", "safety")
STRENGTH_LEVELS = (None, 0, 1, 2, 3)
SAFETY_LABELS = (None, "chosen_only", "both", "neither")


def text_files(path: Path, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> list[Path]:
    """The file itself, or all files of a folder with a known suffix, sorted by name."""
    path = Path(path)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file())
        if not found:
            raise ValueError(f"{path}: the folder has no file that ends in {', '.join(suffixes)}")
        return found
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder; check the path")
    if not path.name.endswith(suffixes):
        raise ValueError(f"{path}: expected a file that ends in {', '.join(suffixes)}")
    return [path]


def read_texts(path: Path) -> Iterator[str]:
    """Documents in order: a .txt file is one document, a row of the others has its own in `text`. Blank ones are skipped."""
    empty = True
    for file in text_files(path):
        for text in plain_documents(file) if file.suffix == ".txt" else _text_column(file):
            if text.strip():
                empty = False
                yield text
    if empty:
        raise ValueError(f"{path}: the corpus is empty; expected at least one document with text")


def plain_documents(file: Path) -> Iterator[str]:
    """The documents of a .txt file: one, or stretches of LONG_DOCUMENT characters that end at a blank line."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            kept: list[str] = []
            size = 0
            for line in lines:
                kept.append(line)
                size += len(line)
                if size >= LONG_DOCUMENT and not line.strip():
                    yield "".join(kept)
                    kept, size = [], 0
            yield "".join(kept)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from None


def read_jsonl(path: Path) -> list[Row]:
    """All rows of one file or folder as they are."""
    return [row for _, row in read_rows(path)]


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(place for error messages, row) of every row of a file or folder."""
    for file in text_files(path, ROW_SUFFIXES):
        yield from _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """One JSON object a line, keys in the order given; returns the number of rows."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_chats(path: Path) -> list[Row]:
    """Rows with `messages` that end in an answer (or `prompt` and `completion`, which become messages)."""
    out = []
    for where, row in read_rows(path):
        if "messages" in row:
            messages = row["messages"]
        elif "completion" in row:
            messages = _side(row, "prompt", "user", where) + _side(row, "completion", "assistant", where)
        else:
            raise ValueError(f"{where}: expected the key messages (or prompt and completion), found {_keys(row)}")
        check_messages(messages, where)
        if all(message["role"] != "assistant" for message in messages):
            raise ValueError(
                f"{where}: the chat has no assistant turn, so there is nothing to learn; add one or drop it"
            )
        check_messages(messages, where, last="assistant")
        out.append({**_without(row, "prompt", "completion"), "messages": messages})
    return _not_empty(out, path, "chats")


def read_prompts(path: Path) -> list[Row]:
    """Rows with `messages` that end with the user (or `prompt`, text or messages), `id`, `prompt_kind`, `task`, `meta`.

    `turns`, where there are any, are texts that the user says one after the other; the prompt ends with the first (MT-bench's form).
    """
    out = []
    for number, (where, given) in enumerate(read_rows(path), 1):
        row = _begun(given, where) if "turns" in given else given
        if "messages" not in row and "prompt" not in row:
            raise ValueError(f"{where}: expected the key messages or prompt, found {_keys(row)}")
        messages = row["messages"] if "messages" in row else _side(row, "prompt", "user", where)
        check_messages(messages, where, last="user")
        if "turns" in row and messages[-1]["content"] != row["turns"][0]:
            raise ValueError(f"{where}: the prompt must end with the first of turns, {row['turns'][0][:60]!r}")
        defaults = {"id": f"{Path(path).stem}-{number}", "prompt_kind": "helpful", "task": "chat", "meta": {}}
        _one_of(row, "prompt_kind", PROMPT_KINDS, where)
        out.append({**defaults, **_without(row, "prompt"), "messages": messages})
    return _not_empty(out, path, "prompts")


def read_preferences(path: Path) -> list[Row]:
    """Preferences as TRL's conversational form plus Ayni's keys, whatever they came as.

    Taken: TRL's `prompt`, `chosen`, `rejected` as messages; the same with the prompt at the head of both answers; plain
    strings; HH-RLHF's transcripts ("\\n\\nHuman: ... \\n\\nAssistant: ..."); AlpacaEval's judgements (see `judgements.py`),
    whose undecided rows are left out. Where nothing is said: strength None (no margin, and no row in a table by strength),
    prompt_kind helpful, safety None, source the file's name, round 0, annotator "unknown".
    """
    out = []
    undecided = 0
    for where, given in read_rows(path):
        row = given
        if is_judgement(given):
            judged = from_judgement(given, where)
            if judged is None:
                undecided += 1
                continue
            row = judged
        if "chosen" not in row or "rejected" not in row:
            raise ValueError(f"{where}: expected the keys chosen and rejected, found {_keys(row)}")
        prompt, chosen, rejected = _pair(row, where)
        check_messages(prompt + chosen, f"{where}, chosen", last="assistant")
        check_messages(prompt + rejected, f"{where}, rejected", last="assistant")
        check_messages(prompt, f"{where}, prompt", last="user")
        if [m["content"].strip() for m in chosen] == [m["content"].strip() for m in rejected]:
            raise ValueError(f"{where}: chosen and rejected are the same answer; a preference needs two, drop the row")
        _one_of(row, "strength", STRENGTH_LEVELS, where)
        _one_of(row, "prompt_kind", PROMPT_KINDS, where)
        _one_of(row, "safety", SAFETY_LABELS, where)
        defaults = {"strength": None, "prompt_kind": "helpful", "safety": None, "source": Path(path).name.split(".")[0],
                    "round": 0, "annotator": "unknown"}  # fmt: skip
        out.append({**defaults, **row, "prompt": prompt, "chosen": chosen, "rejected": rejected})
    if undecided:
        telemetry.say(f"  {path}: {undecided} rows left out: both answers equal, or no preference between them")
    return _not_empty(out, path, "preferences")


def read_ratings(path: Path) -> list[Row]:
    """Grades of single answers: `messages` ending with the user (or `prompt`), `answer`, `ratings` {rater: number}, `prompt_kind`."""
    out = []
    for where, row in read_rows(path):
        if ("messages" not in row and "prompt" not in row) or "answer" not in row or "ratings" not in row:
            raise ValueError(f"{where}: expected the keys messages (or prompt), answer and ratings, found {_keys(row)}")
        messages = row["messages"] if "messages" in row else _side(row, "prompt", "user", where)
        check_messages(messages, where, last="user")
        if not isinstance(row["answer"], str):
            raise ValueError(f"{where}: answer must be text, found {str(row['answer'])[:60]!r}")
        given = row["ratings"]
        if not isinstance(given, dict) or not given or not all(map(_is_number, given.values())):
            raise ValueError(f'{where}: ratings must be like {{"Ann": 5, "Ben": 7}}, found {str(given)[:60]!r}')
        _one_of(row, "prompt_kind", PROMPT_KINDS, where)
        out.append({"prompt_kind": "helpful", **_without(row, "prompt"), "messages": messages})
    return _not_empty(out, path, "ratings")


def _begun(row: Row, where: str) -> Row:
    """A row with `turns` has its first as prompt if it has no other."""
    turns = row["turns"]
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise ValueError(f"{where}: turns must be a list of what the user says, found {str(turns)[:60]!r}")
    return row if "messages" in row or "prompt" in row else {**row, "prompt": turns[0]}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text_column(file: Path) -> Iterator[str]:
    for where, row in read_rows(file):
        if not isinstance(row.get("text"), str):
            raise ValueError(f'{where}: expected the key "text" with a string, found {_keys(row)}')
        yield row["text"]


def _json_rows(file: Path) -> Iterator[tuple[str, Row]]:
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not isinstance(row, dict):
                    raise ValueError(
                        f"{file}, line {number}: expected an object such as {{...}}, found {line[:40].decode(errors='replace')!r}"
                    )
                yield f"{file}, line {number}", row
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {number}: not JSON ({error.msg} at character {error.pos + 1}); expected one object per line"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}, line {number}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{file}: a broken gzip file ({error}); copy or download it again") from None


def _parquet_rows(file: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", row
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file}: not a readable Parquet file ({error}); copy or download it again") from None


def _pair(row: Row, where: str) -> tuple[list[Message], list[Message], list[Message]]:
    chosen, rejected = (_side(row, key, "assistant", where) for key in ("chosen", "rejected"))
    if "prompt" in row:
        return _side(row, "prompt", "user", where), chosen, rejected
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0:
        raise ValueError(
            f"{where}: chosen and rejected do not begin with the same prompt; give it under the key prompt"
        )
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _side(row: Row, key: str, role: Literal["user", "assistant"], where: str) -> list[Message]:
    """The messages under a key: a list as it is, a Human/Assistant transcript taken apart, other text as one message."""
    value = row.get(key)
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key} must be text or a list of messages, found {str(value)[:60]!r}")
    head, *turns = re.split(r"(?:^|\n\n)(Human|Assistant):", value)
    if head.strip() or not turns:
        return [{"role": role, "content": value}]
    roles = {"Human": "user", "Assistant": "assistant"}
    spoken: list[Message] = []
    for who, said in zip(turns[::2], turns[1::2]):
        if (
            spoken and spoken[-1]["role"] == roles[who]
        ):  # real HH-RLHF files have a few such turns: one turn, said in two
            spoken[-1]["content"] += "\n\n" + said.strip()
        else:
            spoken.append({"role": roles[who], "content": said.strip()})
    # HH-RLHF's prompts end in an empty "Assistant:", where the answer begins.
    return spoken[:-1] if role == "user" and spoken[-1] == {"role": "assistant", "content": ""} else spoken


def _one_of(row: Row, key: str, allowed: tuple[Any, ...], where: str) -> None:
    if key in row and (row[key] not in allowed or isinstance(row[key], bool)):
        raise ValueError(f"{where}: {key} is {row[key]!r}; expected one of {', '.join(map(repr, allowed))}")


def _without(row: Row, *keys: str) -> Row:
    return {key: value for key, value in row.items() if key not in keys}


def _keys(row: Row) -> str:
    return ", ".join(row) if row else "no keys"


def _not_empty(rows: list[Row], path: Path, what: str) -> list[Row]:
    if not rows:
        raise ValueError(f"{path}: no {what} in it; expected at least one row")
    return rows
