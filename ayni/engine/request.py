"""What is asked of the engine, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Finish = Literal["stop", "length"]
Top = list[tuple[int, float]]  # (id, log-probability) of the likeliest tokens, in descending order


@dataclass(frozen=True)
class Request:
    """A prompt, how to continue it, and n: its samples share one prefill and differ by their random stream.

    Requests of equal seed see equal uniforms: give each its own where answers are to be independent.
    """

    prompt: list[int]
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0  # below 1 the log-probabilities are not those of the sampling distribution: not for PPO
    seed: int = 0
    n: int = 1
    stop_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    top_logprobs: int = 0  # how many of the likeliest tokens to name beside each new one

    def __post_init__(self) -> None:
        for good, problem in (
            (len(self.prompt) > 0, "the prompt holds no token; begin it with BOS"),
            (self.max_new_tokens > 0, f"max_new_tokens is {self.max_new_tokens}; ask for one token at least"),
            (self.temperature >= 0, f"temperature is {self.temperature}; give 0 (greedy) or more"),
            (0 < self.top_p <= 1, f"top_p is {self.top_p}; give a share in (0, 1]"),
            (self.n > 0, f"n is {self.n}; ask for one sample at least"),
            (0 <= self.seed < 2**64, f"seed is {self.seed}; give an integer in [0, 2^64)"),
            (self.top_logprobs >= 0, f"top_logprobs is {self.top_logprobs}; give 0 (none) or more"),
        ):
            if not good:
                raise ValueError(f"request: {problem}")


@dataclass(frozen=True)
class Completion:
    """New ids with what ended them (EOS, or the tokens of a stop string) and log_softmax(logits / T) of each."""

    ids: list[int]
    logprobs: list[float]
    finish: Finish
    top: list[Top] | None = None  # one per id, if the request has `top_logprobs`
