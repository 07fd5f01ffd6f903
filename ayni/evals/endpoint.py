"""Any server that speaks OpenAI's chat API, asked many prompts: a judge, a rater, an attacker; `ayni serve` is one too.

Answers are written down the moment they are known, keyed by what was asked, so that a run that was killed goes on where it
stopped. A server that is busy or away is asked again a few times, with growing pauses; a server that says no is not.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ayni import telemetry
from ayni.evals.memory import Memory, key_of

KEY_VARIABLE = "AYNI_JUDGE_KEY"
LARGEST_REPLY = 16 * 2**20  # bytes
LONGEST_PAUSE = 30.0  # seconds between two tries, whatever the server asks for
WORTH_ANOTHER_TRY = (408, 409, 425, 429, 500, 502, 503, 504, 529)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True)
class Endpoint:
    """`url`: the server (http://127.0.0.1:8000), with or without /v1. `cache`: a file of answers; None: nothing is kept.

    `timeout` in seconds, of one try; `pause` in seconds before the second try, doubled before each later one.
    """

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    temperature: float = 0.0
    max_tokens: int = 256
    cache: Path | None = None
    timeout: float = 120.0
    tries: int = 5
    pause: float = 1.0
    parallel: int = 4

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or len(self.url.split()) != 1:
            raise ValueError(f"{self.url!r} is no address of a server; expected one like http://127.0.0.1:8000/v1")
        if "@" in parts.netloc:
            raise ValueError(f"the address of {parts.hostname} holds a password; give the key in {KEY_VARIABLE}")
        if not self.model:
            raise ValueError(f"{self.url}: name the model that is to answer, as in {self.url}#MODEL")
        if self.api_key is not None and (not self.api_key.isascii() or not self.api_key.isprintable()):
            raise ValueError(f"the key for {self.url} holds characters that no HTTP header may; look at {KEY_VARIABLE}")

    @property
    def chat_url(self) -> str:
        base = self.url.rstrip("/").removesuffix("/chat/completions")
        return f"{base if urlsplit(base).path.strip('/') else base + '/v1'}/chat/completions"

    def answers(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        """One answer to each dialogue (messages with `role` and `content`), in order.

        Equal dialogues get one answer at temperature 0, each a sample of its own above. ValueError where the server
        refuses, or cannot be reached after all tries; what was answered before is kept in the cache.
        """
        bodies, nth = [], Counter[str]()
        for prompt in prompts:
            body = {"model": self.model, "messages": [dict(message) for message in prompt],
                    "temperature": self.temperature, "max_tokens": self.max_tokens}  # fmt: skip
            same = key_of(body)
            bodies.append((body, nth[same] if self.temperature > 0 else 0))
            nth[same] += 1
        keys = [key_of([self.chat_url, body, number]) for body, number in bodies]
        memory = Memory(self.cache) if self.cache is not None else None
        known: dict[str, str] = memory.known if memory is not None else {}
        waiting = {key: body for key, (body, _) in zip(keys, bodies) if key not in known}
        with (
            telemetry.progress(f"asking {self.model}", len(waiting), "answers") as bar,
            ThreadPoolExecutor(self.parallel) as pool,
        ):
            asked = {pool.submit(self._ask, body): key for key, body in waiting.items()}
            try:
                for each in as_completed(asked):
                    found = {asked[each]: each.result()}
                    if memory is not None:
                        memory.add(found)
                    known |= found
                    bar.advance()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [known[key] for key in keys]

    def _ask(self, body: dict[str, Any]) -> str:
        problem = ""
        for attempt in range(self.tries):
            try:
                return _text(self._post(body), self.chat_url)
            except urllib.error.HTTPError as error:
                with error:
                    problem = _message(error)
                    if error.code not in WORTH_ANOTHER_TRY:
                        raise ValueError(f"{self.chat_url} says no: {problem}{self._advice(error.code)}") from None
                    wanted = error.headers.get("Retry-After", "")
            except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, cut short
                problem, wanted = str(getattr(error, "reason", None) or error) or type(error).__name__, ""
            if attempt + 1 < self.tries:
                time.sleep(self._wait(attempt, wanted))
        raise ValueError(
            f"{self.chat_url}: no answer after {self.tries} tries ({problem}). Is the server up? The same command goes on from there"
        )

    def _wait(self, attempt: int, wanted: str) -> float:
        """Seconds: what the server asks for, else doubled each time, with some chance so that threads do not march in step."""
        try:
            return min(max(0.0, float(wanted)), LONGEST_PAUSE)
        except ValueError:
            return min(self.pause * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)

    def _post(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(self.chat_url, json.dumps(body).encode(), headers)
        with _OPENER.open(request, timeout=self.timeout) as reply:
            content: bytes = reply.read(LARGEST_REPLY + 1)
        if len(content) > LARGEST_REPLY:
            raise ValueError(f"{self.chat_url}: a reply of more than {LARGEST_REPLY >> 20} MiB; is this a chat server?")
        return content

    def _advice(self, code: int) -> str:
        if code in (401, 403):
            return f". Give a key that it takes in the environment variable {KEY_VARIABLE}"
        if code == 404:
            return f". Does it serve {self.model!r}, and is the address right?"
        return ""


def endpoint(where: str, cache: Path | None = None, **settings: Any) -> Endpoint:
    """Of URL#MODEL; the key, if the server wants one, from the environment variable AYNI_JUDGE_KEY."""
    url, _, model = where.partition("#")
    return Endpoint(url, model, os.environ.get(KEY_VARIABLE) or None, cache=cache, **settings)


def _text(reply: bytes, url: str) -> str:
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(f"{url}: the reply is no chat completion: {reply[:80].decode(errors='replace')!r}") from None
    if content is None:  # a server whose model said nothing
        return ""
    if not isinstance(content, str):
        raise ValueError(f"{url}: the answer is not text: {str(content)[:80]!r}")
    return content


def _message(error: urllib.error.HTTPError) -> str:
    """Status and what the server says of it, in OpenAI's envelope or as plain text, short."""
    said = ""
    try:
        text = error.read(4096).decode(errors="replace")
        said = text
        said = json.loads(text)["error"]["message"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        pass
    return f"{error.code}, {' '.join(str(said).split())[:200] or error.reason}"
