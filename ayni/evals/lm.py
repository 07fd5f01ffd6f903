"""lm-eval's `LM` over our engine. Imports lm-eval: import this file only where an evaluation begins (extra `eval`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ayni.evals.answering import Answering, Continue, numbered

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager
except ImportError as error:
    raise ImportError(
        f"suites are run by lm-eval, which is not installed here ({error}); install it with: pip install 'ayni[eval]'"
    ) from None

__all__ = ["AyniLM", "TaskManager", "simple_evaluate"]
MAX_NEW_TOKENS = 256  # of a task that does not say; lm-eval's default


class AyniLM(LM):
    """The three requests and the chat template of lm-eval's interface, answered by `Answering`."""

    def __init__(self, answering: Answering) -> None:
        super().__init__()
        self.answering = answering

    def loglikelihood(self, requests: Sequence[Instance], **_: Any) -> list[tuple[float, bool]]:
        return self.answering.log_likelihoods([request.args for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Instance], **_: Any) -> list[float]:
        return self.answering.rolling([request.args[0] for request in requests])

    def generate_until(self, requests: Sequence[Instance], **_: Any) -> list[str]:
        return self.answering.continuations(numbered([_asked(*request.args) for request in requests]))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.answering.dialogue(chat_history, is_open=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.answering.tokenizer.template if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        return self.answering.tokenizer.hash


def _asked(prompt: str, settings: dict[str, Any]) -> Continue:
    """lm-eval's generation settings. Temperature counts only with `do_sample`, as in transformers."""
    until = settings.get("until") or []
    known = {"until", "max_gen_toks", "do_sample", "temperature", "top_p"}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"generation_kwargs: {', '.join(unknown)} unknown; known: {', '.join(sorted(known))}")
    return Continue(
        prompt,
        tuple([until] if isinstance(until, str) else until),
        int(settings.get("max_gen_toks", MAX_NEW_TOKENS)),
        float(settings.get("temperature", 1.0)) if settings.get("do_sample") else 0.0,
        float(settings.get("top_p", 1.0)) if settings.get("do_sample") else 1.0,
    )
