"""`ayni eval` on a user's own data: how well a model predicts held-out answers, and what it says itself.

For a language model and chats: perplexity of the last answers, and one sampled answer per chat
beside the reference (ROUGE-L). For a reward model and preferences: accuracy by strength. Every figure has its interval.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config_measuring import EvaluateSettings
from ayni.engine.answers import sample_answers
from ayni.engine.engine import Engine
from ayni.engine.score import log_probs_of, scores_of
from ayni.evals.statistics import mean_interval, share
from ayni.feedback.schema import STRENGTHS
from ayni.model.checkpoint import is_scalar, load_model, load_scalar
from ayni.scoring.overlap import rouge_l
from ayni.text.dialogue import encode_chat, encode_prompt
from ayni.text.sources import read_chats, read_preferences, write_jsonl
from ayni.text.tokenizer import load_tokenizer


def run(settings: EvaluateSettings, model: Path, data: Path, out: Path, *, seed: int) -> Artifact:
    """Writes results.json (one checkpoint) and, for a language model, answers.jsonl."""
    is_reward_model = is_scalar(model)

    def work_in(work: Path) -> None:
        figures = _rank(model, data) if is_reward_model else _answer(settings, model, data, work, seed)
        write_json(
            work / "results.json",
            {
                "checkpoints": [{"name": model.name, "path": None, "metrics": figures}],
                "settings": settings.model_dump(),
            },
        )
        rows = [[name, f["value"], f["low"], f["high"], f["n"], f["unit"]] for name, f in figures.items()]
        telemetry.table(["metric", "value", "low", "high", "n", "unit"], rows, title=f"{model} on {data}")

    return build(out, "held-out", settings.model_dump(), {"model": model, "data": data}, seed, work_in)


def _rank(model: Path, data: Path) -> dict[str, Any]:
    """Share of pairs whose chosen answer scores higher, in all and by strength (Table 8)."""
    tokenizer, scalar = load_tokenizer(model), load_scalar(model, "auto")
    rows, row_len = read_preferences(data), scalar.settings.max_seq_len
    sides = [
        [encode_chat(tokenizer, row["prompt"] + row[side])[0][-row_len:] for row in rows]
        for side in ("chosen", "rejected")
    ]
    r_chosen_N, r_rejected_N = (scores_of(scalar, side, row_len) for side in sides)
    right = (r_chosen_N > r_rejected_N).tolist()
    figures = {"accuracy": share(right)}
    for level, name in enumerate(STRENGTHS):
        hits = [hit for hit, row in zip(right, rows) if row.get("strength") == level]
        if hits:
            figures[f"accuracy: {name}"] = share(hits)
    return figures


def _answer(settings: EvaluateSettings, model: Path, data: Path, work: Path, seed: int) -> dict[str, Any]:
    """Perplexity of the last answers of held-out chats, and overlap of the model's own answers with them."""
    tokenizer, policy = load_tokenizer(model), load_model(model, "auto")
    chats = [row["messages"] for row in read_chats(data)]
    prompts = [encode_prompt(tokenizer, messages[:-1]) for messages in chats]
    golds = [encode_chat(tokenizer, messages)[0][len(prompt) :] for messages, prompt in zip(chats, prompts)]
    with telemetry.progress("scoring and sampling", len(chats), "answers") as bar:
        nats = [float(-logp.mean()) for logp in log_probs_of(policy, prompts, golds)]
        tokens = [len(gold) for gold in golds]
        rows = [{"id": str(i), "messages": messages[:-1]} for i, messages in enumerate(chats)]
        sampled = sample_answers(
            Engine(policy, tokenizer),
            tokenizer,
            rows,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
            bar=bar,
        )
    own = [answer for [answer] in sampled]
    write_jsonl(
        work / "answers.jsonl",
        (
            {"messages": messages[:-1], "reference": messages[-1]["content"], "answer": answer.text}
            for messages, answer in zip(chats, own)
        ),
    )
    loss = mean_interval(nats, "nats per token, mean over answers")
    total = math.fsum(n * t for n, t in zip(nats, tokens)) / sum(tokens)
    return {
        "answer_loss": loss,
        "answer_perplexity": {
            "value": math.exp(total),
            "low": None,
            "high": None,
            "n": sum(tokens),
            "unit": "per token",
        },
        "rouge_l": mean_interval(
            [rouge_l(answer.text, messages[-1]["content"]) for answer, messages in zip(own, chats)], "ROUGE-L F1"
        ),
        "mean_tokens": mean_interval([float(len(answer.ids)) for answer in own], "tokens"),
        "ended": share([answer.ended for answer in own]),
    }
