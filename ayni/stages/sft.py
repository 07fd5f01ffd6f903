"""Stage: supervised fine-tuning (paper 3.1). Samples packed to fill the row, loss on answer tokens only, 2 epochs.

loss = -1/|A| sum_{t in A} log p(x_t | x_{<t})       A: the assistant's tokens, the end token included
"""

from __future__ import annotations

from pathlib import Path

from ayni import telemetry
from ayni.artifacts import Artifact, build
from ayni.config import SFTSettings
from ayni.model.checkpoint import check_vocabulary, load_model, save_model
from ayni.text.dialogue import encode_chat
from ayni.text.sources import read_chats
from ayni.text.tokenizer import load_tokenizer
from ayni.train.fitting import fine_tune
from ayni.train.mesh import barrier, open_mesh


def run(settings: SFTSettings, model: Path, chats: Path, out: Path, *, seed: int, device: str = "cpu") -> Artifact:
    """Fine-tunes `model` on dialogues (JSONL rows with `messages`); writes a `LlamaForCausalLM` directory."""
    mesh = open_mesh(device)

    def work_in(work: Path) -> None:
        tokenizer, policy = load_tokenizer(model), load_model(model)
        check_vocabulary(policy.settings, tokenizer, str(model))
        encoded = [encode_chat(tokenizer, row["messages"]) for row in read_chats(chats)]
        samples = [(ids, mask) for ids, mask in encoded if len(ids) <= settings.row_len]
        longer = len(encoded) - len(samples)
        if not samples:
            raise ValueError(
                f"{chats}: every chat is longer than row_len {settings.row_len} tokens; raise it (--set row_len=...)"
            )
        left_out = f"; {longer} longer than row_len {settings.row_len} left out" if longer else ""
        telemetry.say(f"  {len(samples)} dialogues{left_out}")
        whole = fine_tune(
            work,
            "SFT",
            policy,
            samples,
            settings,
            epochs=settings.epochs,
            pad_id=tokenizer.pad_id or 0,
            mesh=mesh,
            seed=seed,
        )
        if mesh.is_main:
            save_model(whole, work, tokenizer)
        barrier(mesh)

    return build(out, "sft", settings.model_dump(), {"model": model, "chats": chats}, seed, work_in)
