"""One model's way through many dialogues: it answers each of the user's turns in sight of its own answers before (paper 3.4).

A prompt row may have `turns`, texts that the user says one after the other (`messages` ends with the first). Without them a
dialogue is one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ayni import telemetry
from ayni.engine.answers import sample_answers
from ayni.engine.engine import Engine
from ayni.evals.memory import Memory
from ayni.text.dialogue import completion_prompt, encode_prompt
from ayni.text.native import Message
from ayni.text.tokenizer import Tokenizer

PER_SAVE = 64  # dialogues answered together, between two saves
Row = dict[str, Any]
Style = Literal["chat", "completion"]


def said_next(row: Row) -> list[str]:
    """What the user says after the first answer, the second, ..."""
    return list(row.get("turns", [])[1:])


def dialogue(row: Row, replies: Sequence[str]) -> list[Message]:
    """The prompt, then replies and the user's further turns in turn: ends with the last reply, or with the user while one is due."""
    messages: list[Message] = list(row["messages"])
    further = said_next(row)
    for number, reply in enumerate(replies):
        messages.append({"role": "assistant", "content": reply})
        if number < len(further):
            messages.append({"role": "user", "content": further[number]})
    return messages


def answered(
    engine: Engine,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    memory: Memory,
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    style: Style = "chat",
    name: str = "answers",
) -> list[Row]:
    """{"id", "replies": [text, ...], "tokens": of each, "ended": of each} for every row, known ones from `memory`.

    Always the same rows together, PER_SAVE at a time: a killed run, gone on with, samples what it would have sampled. Where
    the model's own answers fill its context, the replies still due are empty, of 0 tokens.
    """
    encode = encode_prompt if style == "chat" else completion_prompt
    with telemetry.progress(name, sum(1 + len(said_next(row)) for row in rows), "answers") as bar:
        for start in range(0, len(rows), PER_SAVE):
            chunk = rows[start : start + PER_SAVE]
            if all(row["id"] in memory.known for row in chunk):
                bar.advance(sum(1 + len(said_next(row)) for row in chunk))
                continue
            found: dict[str, Row] = {
                row["id"]: {"id": row["id"], "replies": [], "tokens": [], "ended": []} for row in chunk
            }
            for turn in range(1 + max(len(said_next(row)) for row in chunk)):
                due = [row for row in chunk if turn <= len(said_next(row))]
                prompts = [encode(tokenizer, dialogue(row, found[row["id"]]["replies"])) for row in due]
                fit = [len(prompt) < engine.max_len for prompt in prompts]
                for row, prompt, fits in zip(due, prompts, fit):
                    if turn == 0 and not fits:
                        raise ValueError(
                            f"prompt {row['id']}: {len(prompt)} tokens, and the model's context holds {engine.max_len}, the "
                            "answer included; leave it out"
                        )
                sampled = iter(
                    sample_answers(
                        engine,
                        tokenizer,
                        [{"id": f"{row['id']} turn {turn}"} for row, fits in zip(due, fit) if fits],
                        prompts=[prompt for prompt, fits in zip(prompts, fit) if fits],
                        temperature=temperature,
                        max_new_tokens=max_new_tokens,
                        seed=seed,
                        style=style,
                        bar=bar,
                    )
                )
                for row, fits in zip(due, fit):
                    of, answer = found[row["id"]], next(sampled)[0] if fits else None
                    of["replies"].append(answer.text if answer else "")
                    of["tokens"].append(len(answer.ids) if answer else 0)
                    of["ended"].append(answer.ended if answer else False)
            memory.add(found)
    return [memory.known[row["id"]] for row in rows]
