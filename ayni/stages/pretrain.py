"""Stage 3: pretraining (paper 2.2). Next-token prediction on plain concatenated text, AdamW, cosine to 10% of the peak.

loss = -1/N sum_t log p(x_{t+1} | x_{<=t})        over a fixed budget of tokens
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from ayni import telemetry
from ayni.artifacts import Artifact, build, read_json, write_json
from ayni.config import PretrainSettings
from ayni.model.checkpoint import check_vocabulary, save_model
from ayni.model.transformer import Transformer, init_weights
from ayni.text.tokenizer import load_tokenizer
from ayni.train.batches import TokenRows, read_shard
from ayni.train.fitting import fit_in
from ayni.train.loop import rows_loss
from ayni.train.mesh import barrier, gathered, open_mesh

HELD_OUT_ROWS = 16  # rows of each source that the perplexity is measured on


def run(
    settings: PretrainSettings, tokenizer: Path, shards: Path, out: Path, *, seed: int, device: str = "cpu"
) -> Artifact:
    """Writes a `LlamaForCausalLM` directory with its tokenizer, and perplexity.json (held out, by source)."""
    mesh = open_mesh(device)

    def work_in(work: Path) -> None:
        pieces = load_tokenizer(tokenizer)
        mixture = read_json(shards / "mixture.json")
        architecture = settings.architecture(pieces.vocab_size)
        check_vocabulary(architecture, pieces, str(tokenizer))
        sources = {path.stem: [path] for path in sorted((shards / "train").glob("*.npy"))}
        batches = TokenRows(sources, settings.row_len, settings.batch_rows, seed, mixture["shares"])
        held_out = {
            path.stem: _held_out_rows(path, settings.row_len) for path in sorted((shards / "held_out").glob("*.npy"))
        }
        steps = max(1, settings.tokens // batches.tokens_per_step)

        model = Transformer(architecture)
        init_weights(model, seed)
        telemetry.say(
            f"  {sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, {steps} steps of {batches.tokens_per_step} tokens"
        )
        fit_in(
            work,
            "pretraining",
            model,
            batches,
            rows_loss,
            settings,
            steps=steps,
            tokens=steps * batches.tokens_per_step,
            mesh=mesh,
            seed=seed,
            evaluate=lambda step: {"perplexity": perplexity(model, held_out)},
            eval_every=settings.eval_every,
        )
        whole = gathered(model, mesh, lambda: Transformer(architecture))
        if mesh.is_main:
            save_model(whole, work, pieces)
            write_json(work / "perplexity.json", perplexity(whole, held_out))
        barrier(mesh)

    inputs = {"tokenizer": tokenizer, "shards": shards}
    return build(out, "pretrain", settings.model_dump(), inputs, seed, work_in)


def _held_out_rows(path: Path, row_len: int) -> Tensor | None:
    tokens = torch.from_numpy(read_shard(path)[: HELD_OUT_ROWS * (row_len + 1)].astype("int64"))
    rows = len(tokens) // (row_len + 1)
    return tokens[: rows * (row_len + 1)].view(rows, row_len + 1) if rows else tokens[None] if len(tokens) > 1 else None


@torch.no_grad()
def perplexity(model: nn.Module, held_out: dict[str, Tensor | None]) -> dict[str, float]:
    """exp(mean loss) on each source's held-out rows."""
    figures = {}
    for name, rows_RT in held_out.items():
        if rows_RT is not None:
            loss, count, _ = rows_loss(model, rows_RT)
            figures[name] = math.exp(min(loss.item() / count, 50.0))
    return figures
