"""Stage 2: raw text to token shards (paper 2.1): one shard a source, documents end to end, each within BOS and EOS."""

from __future__ import annotations

from pathlib import Path

from ayni import telemetry
from ayni.artifacts import Artifact, build, write_json
from ayni.config import ShardSettings
from ayni.text.documents import encode_documents
from ayni.text.sources import read_texts, text_files
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.batches import shares_by_tokens, write_shard


def run(
    settings: ShardSettings, tokenizer: Path, corpus: Path, held_out: Path | None, out: Path, *, seed: int
) -> Artifact:
    """Writes train/SOURCE.npy, held_out/SOURCE.npy and mixture.json (tokens and shares of the mixture by source).

    A source is a .jsonl or .parquet file of the corpus folder, a subfolder, or all its .txt files. The most factual sources are up-sampled: a source's share of the training
    tokens is its own tokens times its factor.
    """

    def work_in(work: Path) -> None:
        pieces = load_tokenizer(tokenizer)
        found = sources_of(corpus)
        with telemetry.progress("tokenising", sum(map(len, found.values())), "files") as bar:
            for name, files in found.items():
                tokens = _write(files, work / "train" / f"{name}.npy", pieces)
                bar.advance(len(files), tokens=tokens)
        for name, files in sources_of(held_out).items() if held_out is not None else []:
            _write(files, work / "held_out" / f"{name}.npy", pieces)
        sources = {path.stem: [path] for path in sorted((work / "train").glob("*.npy"))}
        shares = shares_by_tokens(sources, settings.upsample)
        write_json(work / "mixture.json", {"vocab_size": pieces.vocab_size, "shares": shares})
        telemetry.table(
            ["source", "share of training tokens"], [[name, f"{share:.1%}"] for name, share in shares.items()]
        )

    inputs = {"tokenizer": tokenizer, "corpus": corpus, "held_out": held_out}
    return build(out, "shards", settings.model_dump(), inputs, seed, work_in)


def sources_of(corpus: Path) -> dict[str, list[Path]]:
    """Files by source: one of each .jsonl or .parquet file and each subfolder, one of all .txt files beside them."""
    found: dict[str, list[Path]] = {}
    for file in text_files(corpus):
        inside = file.relative_to(corpus).parts if corpus.is_dir() else (file.name,)
        alone = file.name.split(".")[0] if file.suffix != ".txt" else "texts"
        found.setdefault(inside[0] if len(inside) > 1 else alone, []).append(file)
    return found


def _write(files: list[Path], shard: Path, pieces: Tokenizer) -> int:
    texts = (text for file in files for text in read_texts(file))
    return write_shard(shard, encode_documents(pieces, texts), pieces.vocab_size)
