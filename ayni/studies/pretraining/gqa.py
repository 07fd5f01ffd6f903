"""Table 18 and the throughput figure (A.2.1): multi-head, grouped-query and multi-query attention at equal parameters."""

from __future__ import annotations

from ayni.config import ModelSettings
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.pretraining.decode_speed import cache_bytes, tokens_per_second, with_kv_heads
from ayni.studies.pretraining.held_out_text import losses
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.studies.verdicts import judged

HEADS = 4
KV_HEADS = {"mha": 4, "gqa": 2, "mqa": 1}
SPEED = "decoding"  # the arm that trains nothing
MARGIN = 0.005  # nats per character
# What decodes for the throughput: eight heads, wide enough for the cache to weigh something.
DECODER = ModelSettings(dim=256, n_layers=2, n_heads=8, n_kv_heads=2, ffn_dim=704, max_seq_len=1024)
DECODER_KV = {"mha": 8, "gqa": 2, "mqa": 1}
BATCHES, CONTEXTS, REPEATS = (1, 4, 16, 64), (128, 1024), 5


def measure(lab: Lab, arm: str) -> Outcome:
    """A base model with so many key/value heads, its held-out loss, and what it answers after SFT; or the throughputs."""
    if arm == SPEED:
        return _throughput(
            (1, 2) if lab.smoke else BATCHES, (8, 32) if lab.smoke else CONTEXTS, 2 if lab.smoke else REPEATS
        )
    assert lab.recipe.pretrain is not None
    data = lab.data()
    default = lab.recipe.pretrain.architecture(lab.recipe.tokenizer.vocab_size)
    grouped = ModelSettings(**{**default.model_dump(), "n_heads": HEADS, "n_kv_heads": KV_HEADS["gqa"]})
    wanted = with_kv_heads(grouped, KV_HEADS[arm]).model_dump()
    changes = {key: value for key, value in wanted.items() if value != default.model_dump()[key]}
    base = lab.base(data, model=changes) if changes else lab.base(data)
    return Outcome(
        {**losses(base, data), **judged(lab.evaluate(data, lab.sft(data, base)), data)}, {"ffn_dim": wanted["ffn_dim"]}
    )


def _throughput(batches: tuple[int, ...], contexts: tuple[int, ...], repeats: int) -> Outcome:
    """tokens/s and, of models timed in the same turn, ratios to multi-head."""
    models = {name: with_kv_heads(DECODER, kv) for name, kv in DECODER_KV.items()}
    values: dict[str, dict[str, float]] = {}
    speeds = tokens_per_second(models, batches, contexts, repeats)
    for (name, context, rows), speed in speeds.items():
        values[f"{name} {context} {rows}"] = {f"turn {i}": value for i, value in enumerate(speed)}
        for other in (other for other in models if other != name):
            ratios = [mine / theirs for mine, theirs in zip(speed, speeds[other, context, rows], strict=True)]
            values[f"{name}/{other} {context} {rows}"] = {f"turn {i}": ratio for i, ratio in enumerate(ratios)}
    megabytes = {name: cache_bytes(settings, batches[-1], contexts[-1]) / 2**20 for name, settings in models.items()}
    return Outcome(values, {"batches": list(batches), "contexts": list(contexts), "cache_MiB": megabytes})


def conclude(outcomes: Outcomes) -> Conclusion:
    facts = outcomes.by[SPEED][outcomes.seeds[0]].facts
    batches, contexts = facts["batches"], facts["contexts"]
    largest = f"{contexts[-1]} {batches[-1]}"
    rows, series = [], []
    for arm, kv_heads in KV_HEADS.items():
        ratio = level(outcomes, f"{arm}/mha {largest}", SPEED)
        rows.append(
            [
                arm.upper(),
                kv_heads,
                outcomes.by[arm][outcomes.seeds[0]].facts["ffn_dim"],
                level(outcomes, "loss", arm).cell(digits=4),
                level(outcomes, "facts_right", arm).cell(100, 1),
                f"{facts['cache_MiB'][arm]:.0f}",
                ratio.cell(),
            ]
        )
        for context in contexts:
            speeds = [level(outcomes, f"{arm} {context} {batch}", SPEED) for batch in batches]
            series.append(Series(f"{arm.upper()}, context {context}", batches, [e.value for e in speeds]))
    levels = [level(outcomes, "loss", arm) for arm in KV_HEADS]
    losses_ = Series("loss", [arm.upper() for arm in KV_HEADS], [e.value for e in levels], [e.low for e in levels], [e.high for e in levels])  # fmt: skip
    return Conclusion(
        effects=[
            difference(outcomes, "loss", "mha", "gqa", "held-out loss, MHA minus GQA", "nats per character", -MARGIN),
            level(outcomes, f"gqa/mha {largest}", SPEED, f"tokens/s of GQA over MHA, context {contexts[-1]}, batch {batches[-1]}", "times", 1.0),
            level(outcomes, f"mqa/gqa {largest}", SPEED, f"tokens/s of MQA over GQA, context {contexts[-1]}, batch {batches[-1]}", "times", 1.0),
        ],
        columns=["attention", "kv heads", "FFN width", "held-out loss, nats per character", "facts right, %", f"cache at {largest.replace(' ', ' x ')}, MiB", "tokens/s over MHA's there"],
        rows=rows,
        panels=[
            Panel("held-out loss", "attention", "nats per character", [losses_], "bars"),
            Panel("decoding", "rows of a step", "new tokens per second", series, log_x=True, log_y=True),
        ],
        remarks=[
            f"The throughput is of models {DECODER.dim} wide with {DECODER.n_heads} heads and {', '.join(map(str, DECODER_KV.values()))} key/value heads, "
            "timed in turns in one process; absolute figures are this machine's."
        ],
    )  # fmt: skip


STUDY = Study(
    name="gqa",
    group="pretraining",
    claim=f"At equal parameters grouped-query attention loses at most {MARGIN} nats per character to multi-head attention and decodes faster where the cache is large; multi-query faster still.",
    paper="Table 18: over most tasks GQA is on par with MHA and better than MQA on average, FFN widened by 1.33 (MQA) and 1.3 (GQA) for equal size, 30B, 150B tokens. "
    "Throughput figure: batch doubled from 1, context 256 and 2k; with large batches MHA runs out of memory while GQA and MQA go on.",
    arms=(*KV_HEADS, SPEED),
    measure=measure,
    conclude=conclude,
    method="The default model has 4 heads and 2 key/value heads (GQA); with 4 (MHA) or 1 (MQA) its feed-forward layer is narrower or wider by as many parameters. Same corpus, tokens and seed.",
)  # fmt: skip
