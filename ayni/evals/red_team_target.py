"""The model under attack in a red-team round; it also words its own attacks anew (paper 4.3: no such thing there; ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ayni.config import RedTeamSettings
from ayni.engine.answers import row_seed, sample_answers
from ayni.engine.engine import Engine
from ayni.telemetry import ProgressBar
from ayni.text.attacks import Row
from ayni.text.dialogue import encode_prompt
from ayni.text.tokenizer import Tokenizer


@dataclass
class Target:
    """The model under attack: also the attacker that words its attacks anew."""

    engine: Engine
    tokenizer: Tokenizer
    settings: RedTeamSettings
    seed: int
    rewrites: int = 0
    tokens: int = 0  # sampled in the search

    def ask(self, rows: list[Row]) -> list[str | None]:
        fits = [row for row in rows if self._fits(row)]
        answers = iter(self._sample(fits, self.settings.temperature, "answers"))
        return [next(answers) if self._fits(row) else None for row in rows]

    def rewrite(self, texts: list[str], wordings: list[str]) -> list[str]:
        rows = []
        for text, wording in zip(texts, wordings):
            self.rewrites += 1
            asked = wording.replace("{text}", text)
            rows.append({"id": f"rewrite-{self.rewrites}", "messages": [{"role": "user", "content": asked}]})
        fits = [row for row in rows if self._fits(row)]
        said = iter(self._sample(fits, self.settings.attacker_temperature, "rewrites"))
        return [next(said) if self._fits(row) else "" for row in rows]

    def again(self, rows: Sequence[Row], name: str, bar: ProgressBar) -> list[list[str]]:
        """`repeats` fresh answers to each dialogue as it stands."""
        sampled = sample_answers(
            self.engine,
            self.tokenizer,
            rows,
            n=self.settings.repeats,
            temperature=self.settings.temperature,
            max_new_tokens=self.settings.max_new_tokens,
            seed=row_seed(self.seed, name),
            bar=bar,
        )
        return [[answer.text for answer in answers] for answers in sampled]

    def _fits(self, row: Row) -> bool:
        return len(encode_prompt(self.tokenizer, row["messages"])) + self.settings.max_new_tokens <= self.engine.max_len

    def _sample(self, rows: list[Row], temperature: float, name: str) -> list[str]:
        if not rows:
            return []
        sampled = sample_answers(
            self.engine,
            self.tokenizer,
            rows,
            temperature=temperature,
            max_new_tokens=self.settings.max_new_tokens,
            seed=row_seed(self.seed, name),
        )
        self.tokens += sum(len(answer.ids) for [answer] in sampled)
        return [answer.text for [answer] in sampled]
