"""`ayni contamination`: how much of an evaluation set stood in the training text, and whether the scores show it (A.6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ayni.artifacts import Artifact, build, discard_partial, write_json
from ayni.config_measuring import ContaminationSettings
from ayni.text.contamination import Found, read_scores, scan, table_at
from ayni.text.samples import Sample, read_samples, read_training
from ayni.text.sources import ROW_SUFFIXES, text_files, write_jsonl
from ayni.text.tokenizer import FILES, load_tokenizer

EXCERPT = 300  # characters


def run(
    settings: ContaminationSettings,
    training: Sequence[Path],
    evaluation: Sequence[Path],
    scores: Sequence[Path],
    tokenizer: Path | None,
    out: Path,
) -> Artifact:
    """Writes contamination.json (per data set and L: the four subsets, Z_n, the verdict) and samples.jsonl (per sample).

    A file of `evaluation` (or of a folder in it) is a data set; `scores` are files with `id` and `score`, one for each
    data set in the same order, or none at all.
    """
    files = [file for path in evaluation for file in text_files(path, ROW_SUFFIXES)]
    if scores and len(scores) != len(files):
        raise ValueError(
            f"{len(scores)} files of scores for {len(files)} data sets; give one for each, in order: "
            + ", ".join(map(str, files))
        )

    def work_in(work: Path) -> None:
        datasets = [read_samples(file) for file in files]
        score_S = [read_scores(path, [s.id for s in samples]) for path, samples in zip(scores, datasets)]
        pieces = load_tokenizer(tokenizer) if tokenizer is not None else None
        texts = [sample.text for samples in datasets for sample in samples]
        found = scan(texts, read_training(list(training)), pieces, settings.lengths)
        names = data_set_names(files)
        bounds = np.cumsum([0, *map(len, datasets)])
        slices = [slice(begin, end) for begin, end in pairwise(bounds)]
        results = {
            "tokens": "words and punctuation marks" if pieces is None else f"tokenizer {pieces.hash[:12]}",
            "training": {"documents": found.documents, "tokens": found.training_tokens},
            "datasets": [
                {"name": name, **_data_set(settings, found, part, score_S[number] if scores else None)}
                for number, (name, part) in enumerate(zip(names, slices))
            ],
        }
        write_json(work / "contamination.json", results)
        rows = ((name, sample) for name, samples in zip(names, datasets) for sample in samples)
        write_jsonl(
            work / "samples.jsonl",
            (_row(settings, found, s, name, sample) for s, (name, sample) in enumerate(rows)),
        )

    inputs = {f"training {number}": path for number, path in enumerate(training)}
    inputs |= {f"evaluation {number}": path for number, path in enumerate(evaluation)}
    inputs |= {f"scores {number}": path for number, path in enumerate(scores)}
    inputs |= {"tokenizer": tokenizer} if tokenizer is not None else {}
    try:
        return build(out, "contamination", settings.model_dump(mode="json"), inputs, 0, work_in)
    except BaseException:
        discard_partial(out)  # there is no half of it to go on from
        raise


def of_run(directory: Path) -> tuple[list[Path], list[Path], Path | None]:
    """(training texts, evaluation prompts, tokenizer) of a recipe's run directory."""
    data = directory / "data"
    training = [path for name in ("corpus", "sft.jsonl", "prompts_train.jsonl") if (path := data / name).exists()]
    evaluation = data / "prompts_eval.jsonl"
    if not training or not evaluation.is_file():
        raise ValueError(
            f"{directory}: expected a run directory with data/corpus or data/sft.jsonl, and data/prompts_eval.jsonl; "
            "name the files with --train and --eval instead"
        )
    places = [
        path
        for name in ("tokenizer", "base")
        if any((path := directory / name).joinpath(f).is_file() for f in FILES[:2])
    ]
    return training, [evaluation], places[0] if places else None


def data_set_names(files: Sequence[Path]) -> list[str]:
    """The files' names without their suffixes; whole paths where two would be equal."""
    names = [file.name.split(".")[0] for file in files]
    return [str(file) if names.count(name) > 1 else name for file, name in zip(files, names)]


def _data_set(settings: ContaminationSettings, found: Found, part: slice, score_S: np.ndarray | None) -> dict[str, Any]:
    by_length = [
        {"L": length, **table_at(found.share_KS[k, part], score_S)} for k, length in enumerate(settings.lengths)
    ]
    shown = [row["L"] for row in by_length if row["effect"]]
    return {
        "samples": len(found.tokens_S[part]),
        "tokens": int(found.tokens_S[part].sum()),
        "scored": score_S is not None,
        "effect_at": max(shown, default=None),
        "by_length": by_length,
    }


def _row(settings: ContaminationSettings, found: Found, s: int, name: str, sample: Sample) -> dict[str, Any]:
    shares = {str(length): round(float(found.share_KS[k, s]), 6) for k, length in enumerate(settings.lengths)}
    row = {"dataset": name, "id": sample.id, "tokens": int(found.tokens_S[s]), "contamination": shares}
    match: dict[str, Any] = {"longest_match": int(found.longest_S[s])}
    if found.longest_S[s]:
        match |= {"found_in": found.origin_S[s], "excerpt": found.excerpt_S[s][:EXCERPT]}
    return row | match
