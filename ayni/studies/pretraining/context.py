"""Table 16 (A.2.1): half against full context, where only the length differs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from ayni.model.checkpoint import load_model
from ayni.studies.lab import Lab
from ayni.studies.paired import Outcomes, difference, level
from ayni.studies.pretraining.held_out_text import position_losses, right
from ayni.studies.study import Conclusion, Outcome, Panel, Series, Study
from ayni.text.sources import read_prompts, read_texts
from ayni.text.tokenizer import load_tokenizer

BIN = 8  # tokens of a point of the curve
SAMPLES = 4  # answers to a prompt
STAYS = 0.05
PAPER = {"NarrativeQA": (0.21, 17.26), "Qasper": (0.71, 18.52), "SQuAD EM": (57.23, 57.99)}  # 2k, 4k; percent


@dataclass(frozen=True)
class Context:
    length: int  # tokens; half: a question fits with its answer, a dialogue of two turns does not
    pretrain_rows: int  # equal tokens a step in both arms
    sft_rows: int


FULL = {"half": Context(40, 52, 26), "full": Context(80, 26, 13)}
SMOKE = {"half": Context(64, 16, 16), "full": Context(128, 8, 8)}


def measure(lab: Lab, arm: str) -> Outcome:
    """Loss by position in held-out dialogues, and right answers to prompts that need the context and that do not."""
    contexts = SMOKE if lab.smoke else FULL
    here, half, full = contexts[arm], contexts["half"].length, contexts["full"].length
    data = lab.data()
    base = lab.base(data, row_len=here.length, batch_rows=here.pretrain_rows, model={"max_seq_len": here.length})
    tokenizer = load_tokenizer(base)
    texts = list(read_texts(data / "corpus_heldout" / "dialogues.jsonl"))
    ids = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts]
    long = {f"dialogue {i}": sequence for i, sequence in enumerate(ids) if len(sequence) > half + BIN}
    values: dict[str, dict[str, float]] = {"loss within half": {}, "loss beyond half": {}}
    for name, loss in zip(long, position_losses(load_model(base), list(long.values()), full), strict=True):
        values["loss within half"][name] = fmean(loss[: half - 1])  # loss[p - 1] is that of the token at position p
        values["loss beyond half"][name] = fmean(loss[half - 1 :])
        for start in range(0, len(loss) - BIN + 1, BIN):
            values.setdefault(f"loss {start}", {})[name] = fmean(loss[start : start + BIN])
    tuned = lab.sft(data, base, row_len=here.length, batch_rows=here.sft_rows)
    for task in ("fact", "multiturn"):
        rows = [row for row in read_prompts(data / "prompts_eval.jsonl") if row["task"] == task]
        values[f"right_{task}"] = right(lab, data, tuned, rows, SAMPLES)
    return Outcome(values, {"context": here.length})


def conclude(outcomes: Outcomes) -> Conclusion:
    lengths = {arm: outcomes.by[arm][outcomes.seeds[0]].facts["context"] for arm in FULL}
    metrics = ("loss within half", "loss beyond half", "right_fact", "right_multiturn")
    rows = [
        [f"{arm} ({lengths[arm]} tokens)", *(level(outcomes, m, arm).cell(*((1, 3) if m.startswith("loss") else (100, 1))) for m in metrics)]
        for arm in FULL
    ]  # fmt: skip
    curves = []
    for arm in FULL:
        starts = [s for s in range(0, lengths["full"], BIN) if any(outcomes.values(f"loss {s}", arm))]
        levels = [level(outcomes, f"loss {start}", arm) for start in starts]
        curves.append(Series(arm, [start + BIN / 2 for start in starts], [e.value for e in levels], [e.low for e in levels], [e.high for e in levels]))  # fmt: skip
    return Conclusion(
        effects=[
            difference(outcomes, "right_multiturn", "full", "half", "right answers in dialogues of two turns, full minus half context"),
            difference(outcomes, "loss beyond half", "half", "full", f"loss beyond position {lengths['half']}, half minus full", "nats per token"),
            difference(outcomes, "right_fact", "full", "half", "right answers to single questions, full minus half context", above=-STAYS),
        ],
        columns=["context", "loss up to the half, nats per token", "loss beyond", "single questions right, %", "two turns right, %"],
        rows=[*rows, *([f"paper: {task}, 2k and 4k", "", "", "", f"{short} and {long}"] for task, (short, long) in PAPER.items())],
        panels=[
            Panel("ours", "position in a held-out dialogue", "loss, nats per token", curves),
            Panel("Table 16", "task", "percent", [Series(name, list(PAPER), [figures[i] for figures in PAPER.values()], paper=True) for i, name in enumerate(("2k", "4k"))], "bars"),
        ],
        remarks=["Dialogues that do not fit the half context lose their beginning there, and are left out of its supervised fine-tuning."],
    )  # fmt: skip


STUDY = Study(
    name="context",
    group="pretraining",
    claim=f"Twice the context makes a model better at dialogues that the half cannot hold, predicts their later tokens better, and costs single questions less than {100 * STAYS:.0f} points.",
    paper="Table 16: with 4k instead of 2k tokens NarrativeQA goes from 0.21 to 17.26, Qasper from 0.71 to 18.52, SQuAD stays (57.23 to 57.99).",
    arms=tuple(FULL),
    measure=measure,
    conclude=conclude,
    method=f"Contexts of {FULL['half'].length} and {FULL['full'].length} tokens, the world's dialogues being short: a question with its answer fits the half, one with a turn before it does not. Same tokens a step and in all.",
)  # fmt: skip
