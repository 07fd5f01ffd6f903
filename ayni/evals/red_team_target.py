"""The model under attack in a red-team round; it also words its own attacks anew (paper 4.3: no such thing there; ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ayni.config_measuring import RedTeamSettings
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
        """One answer to each dialogue; None where it leaves no room in the context."""
        return self._sample(rows, self.settings.temperature, "answers")

    def rewrite(self, texts: list[str], wordings: list[str]) -> list[str]:
        """Each text as the model words it when asked so; empty where that leaves no room in the context."""
        rows = []
        for text, wording in zip(texts, wordings):
            self.rewrites += 1
            asked = wording.replace("{text}", text)
            rows.append({"id": f"rewrite-{self.rewrites}", "messages": [{"role": "user", "content": asked}]})
        return [said or "" for said in self._sample(rows, self.settings.attacker_temperature, "rewrites")]

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

    def _sample(self, rows: list[Row], temperature: float, name: str) -> list[str | None]:
        fit = [row for row in rows if self._fits(row)]
        if not fit:
            return [None] * len(rows)
        sampled = sample_answers(
            self.engine,
            self.tokenizer,
            fit,
            temperature=temperature,
            max_new_tokens=self.settings.max_new_tokens,
            seed=row_seed(self.seed, name),
        )
        self.tokens += sum(len(answer.ids) for [answer] in sampled)
        said = {row["id"]: answer.text for row, [answer] in zip(fit, sampled)}
        return [said.get(row["id"]) for row in rows]
