"""llama.cpp through its own C interface: parallel sequences, batched continuously, a prompt computed once for its samples.

Set-up: gguf (a file), prompts (lists of ids), limits (per prompt, of each of its samples), sequences (at most, at once),
unified (one cache for all sequences, or one for each), flash (its flash attention), greedy.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import llama_cpp as C
import numpy as np

from bench.worker import serve

BATCH = 2048  # tokens of one llama_decode
ROUND = 256  # a sequence's share of the cache is a multiple of it
WARNING = 3  # of llama.cpp's log levels
BLOCK = 256  # tokens of the vocabulary that are summed before the draw is narrowed down to one block


@dataclass
class Live:
    """A sample in the making: its sequence id in the cache, what it holds so far, and how many tokens it is to have."""

    sequence: int
    position: int
    limit: int
    ids: list[int] = field(default_factory=list)


class Batch:
    """A llama_batch filled through numpy."""

    def __init__(self) -> None:
        self.raw = C.llama_batch_init(BATCH, 0, 1)
        shape = (BATCH,)
        self.token, self.pos = (np.ctypeslib.as_array(p, shape) for p in (self.raw.token, self.raw.pos))
        self.wanted = np.ctypeslib.as_array(self.raw.logits, shape)
        np.ctypeslib.as_array(self.raw.n_seq_id, shape)[:] = 1
        self.sequence = np.zeros(BATCH, dtype=np.int32)
        size = ctypes.sizeof(ctypes.c_int32)
        pointer = ctypes.POINTER(ctypes.c_int32)
        for index in range(BATCH):
            self.raw.seq_id[index] = ctypes.cast(self.sequence.ctypes.data + index * size, pointer)

    def clear(self) -> None:
        self.raw.n_tokens = 0

    def room(self) -> int:
        return BATCH - self.raw.n_tokens

    def add(self, tokens: list[int], first_position: int, sequence: int) -> None:
        """Tokens of one sequence; logits are wanted at the last."""
        start = self.raw.n_tokens
        end = start + len(tokens)
        self.token[start:end] = tokens
        self.pos[start:end] = range(first_position, first_position + len(tokens))
        self.sequence[start:end] = sequence
        self.wanted[start:end] = 0
        self.wanted[end - 1] = 1
        self.raw.n_tokens = end


def told(level: int, text: bytes, _: Any) -> None:
    """llama.cpp's own messages, those below a warning left out: it has thousands."""
    if level >= WARNING:
        sys.stderr.write(text.decode(errors="replace"))


def load(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    log = C.llama_log_callback(told)
    C.llama_log_set(log, ctypes.c_void_p(0))
    context = open_context(setup)
    batch, memory = Batch(), C.llama_get_memory(context)
    todo = list(zip(setup["prompts"], setup["limits"], strict=True))
    system = C.llama_print_system_info().decode().strip()

    def run(request: dict[str, Any]) -> dict[str, Any]:
        C.llama_memory_clear(memory, False)
        random = None if setup["greedy"] else np.random.default_rng(request["nth"])
        some = todo[:8] if request["warmup"] else todo[::4] if request.get("trial") else todo
        finished = generate(context, batch, some, setup["sequences"], random)
        return {"work": sum(len(live.ids) for live in finished), "ids": finished[0].ids, "system": system}

    run.log = log  # type: ignore[attr-defined]  # ctypes forgets a callback that nothing holds
    return run


def open_context(setup: dict[str, Any]) -> Any:
    C.llama_backend_init()
    model = C.llama_model_load_from_file(setup["gguf"].encode(), C.llama_model_default_params())
    longest = max(len(p) + max(limits) for p, limits in zip(setup["prompts"], setup["limits"], strict=True))
    share = -(-longest // ROUND) * ROUND
    params = C.llama_context_default_params()
    params.n_ctx, params.n_seq_max = share * setup["sequences"], setup["sequences"]
    params.n_batch, params.n_ubatch = BATCH, 512
    params.n_threads = params.n_threads_batch = int(os.environ["BENCH_THREADS"])
    params.kv_unified = setup["unified"]
    params.flash_attn_type = C.LLAMA_FLASH_ATTN_TYPE_ENABLED if setup["flash"] else C.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = C.llama_init_from_model(model, params)
    if not context:
        raise RuntimeError(f"llama.cpp gave no context of {params.n_ctx} tokens for {setup['model']}")
    return context


def generate(
    context: Any, batch: Batch, todo: list[Any], sequences: int, random: np.random.Generator | None
) -> list[Live]:
    """Every sample to its limit. A prompt enters when all of its samples have a sequence to be in."""
    memory, waiting = C.llama_get_memory(context), list(reversed(todo))
    free, live, finished = list(range(sequences)), list[Live](), list[Live]()
    while waiting or live:
        batch.clear()
        readers = [[one] for one in live]  # who draws from each row of logits
        for one in live:
            batch.add(one.ids[-1:], one.position, one.sequence)
            one.position += 1
        while waiting and len(waiting[-1][1]) <= len(free) and len(waiting[-1][0]) <= batch.room():
            prompt, limits = waiting.pop()
            readers.append([Live(free.pop(), len(prompt), limit) for limit in limits])
            batch.add(prompt, 0, readers[-1][0].sequence)
        if C.llama_decode(context, batch.raw) != 0:
            raise RuntimeError("llama_decode failed")
        for first, *others in readers:
            for other in others:
                C.llama_memory_seq_cp(memory, first.sequence, other.sequence, -1, -1)
        live = [one for group in readers for one in group]
        rows = np.repeat(np.arange(len(readers)), [len(group) for group in readers])
        for one, token in zip(live, draw(logits_of(context, len(readers)), rows, random), strict=True):
            one.ids.append(int(token))
            if len(one.ids) == one.limit:
                C.llama_memory_seq_rm(memory, one.sequence, -1, -1)
                free.append(one.sequence)
                finished.append(one)
        live = [one for one in live if len(one.ids) < one.limit]
    return finished


def logits_of(context: Any, rows: int) -> np.ndarray:
    vocabulary = C.llama_vocab_n_tokens(C.llama_model_get_vocab(C.llama_get_model(context)))
    return np.ctypeslib.as_array(C.llama_get_logits(context), (rows, vocabulary))


def draw(logits: np.ndarray, rows: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
    """One token for each entry of `rows`: the likeliest without `random`, else a sample of softmax(logits).

    A draw of the inverse distribution function, first among blocks of the vocabulary, then inside one: less work than
    llama.cpp's own sampler, which is called row by row.
    """
    if random is None:
        return logits.argmax(1)[rows]
    weights = np.exp(logits - logits.max(1, keepdims=True))
    blocks = np.add.reduceat(weights, np.arange(0, weights.shape[1], BLOCK), axis=1)
    sums = blocks.cumsum(1)[rows]
    aim = random.random(len(rows)) * sums[:, -1]
    block = np.minimum((sums <= aim[:, None]).sum(1), sums.shape[1] - 1)
    rest = aim - np.where(block > 0, np.take_along_axis(sums, np.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0)
    inside = np.minimum(block[:, None] * BLOCK + np.arange(BLOCK), weights.shape[1] - 1)
    within = np.take_along_axis(weights[rows], inside, 1).cumsum(1)
    return np.minimum(block * BLOCK + (within <= rest[:, None]).sum(1), weights.shape[1] - 1)


if __name__ == "__main__":
    serve(load)
