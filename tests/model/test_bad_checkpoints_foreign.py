"""Foreign checkpoints that are damaged, incomplete or of a kind not read: one ValueError that names the file each time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from ayni.config import RopeScaling
from ayni.model.checkpoint import check, open_checkpoint, save_model
from ayni.model.gguf import open_gguf
from ayni.model.gguf_writer import write_gguf
from ayni.model.llama2c import open_llama2c
from ayni.model.meta import open_meta, write_meta
from ayni.text.tokenizer import Tokenizer

from .interleaved import draw_meta_weights
from .small import language_model, settings
from .test_gguf import source_model
from .test_gguf import write_gguf as write_as_llama_cpp
from .test_llama2c import write_bin
from .test_meta import Surprise, edit, write_release


@pytest.fixture
def release(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """Two parts of Meta's layout with a tokenizer."""
    s = settings(n_kv_heads=4)
    write_release(tmp_path / "release", draw_meta_weights(s), s, 2, by_width=True)
    tokenizer.save(tmp_path / "release")
    return tmp_path / "release"


@pytest.mark.parametrize("by_width", [True, False], ids=["Llama 2 embedding", "Llama 3 embedding"])
def test_meta_without_its_last_part(tmp_path: Path, by_width: bool) -> None:
    """No gap in the numbers: only the shapes tell."""
    s = settings(n_kv_heads=4)
    write_release(tmp_path / "release", draw_meta_weights(s), s, 2, by_width)
    edit(tmp_path / "release", vocab_size=300)
    (tmp_path / "release" / "consolidated.01.pth").unlink()
    with pytest.raises(ValueError, match=r"release: 1 of 2 parts \(dim is 48"):
        open_meta(tmp_path / "release")


def test_meta_never_unpickles_an_object(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"norm.weight": Surprise()}, release / "consolidated.01.pth")
    with pytest.raises(ValueError, match=r"consolidated\.01\.pth: holds more than tensors, which is never unpickled"):
        open_meta(release)
    assert "unpickled" not in capsys.readouterr().out


def test_meta_quantised_to_integers(tmp_path: Path) -> None:
    s = settings(n_kv_heads=4)
    weights = draw_meta_weights(s)
    weights["layers.1.feed_forward.w2.weight"] = weights["layers.1.feed_forward.w2.weight"].to(torch.int8)
    write_release(tmp_path / "release", weights, s, 1, by_width=True)
    with pytest.raises(
        ValueError, match=r"00\.pth: tensor layers\.1\.feed_forward\.w2\.weight is stored as torch\.int8"
    ):
        open_meta(tmp_path / "release")


@pytest.mark.parametrize("change", [{"dim": "48"}, {"n_heads": 0}, {"n_layers": None}, {"norm_eps": -1e-5}], ids=str)
def test_meta_params_that_are_no_numbers(release: Path, change: dict[str, object]) -> None:
    edit(release, **change)
    with pytest.raises(ValueError, match=rf"params\.json: '{next(iter(change))}' is .*, expected a number above 0"):
        open_meta(release)


def test_meta_params_that_are_not_json(release: Path) -> None:
    (release / "params.json").write_text('{"dim": 48,')
    with pytest.raises(ValueError, match=r"params\.json: not JSON"):
        open_meta(release)


def test_meta_export_of_what_its_code_cannot_compute(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for kind in ("linear", "dynamic", "llama3"):
        scaling = RopeScaling(kind=kind, factor=2.0, original_max_seq_len=64)
        save_model(language_model(rope_scaling=scaling), tmp_path / kind, tokenizer)
        with pytest.raises(ValueError, match=f"{kind}: Meta's code has no {kind} RoPE scaling but Llama 3.1's own"):
            write_meta(open_checkpoint(tmp_path / kind), tmp_path / "away", tokenizer)
    assert not (tmp_path / "away").exists()


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    write_as_llama_cpp(tmp_path / "m.gguf", source_model(), Kind.F32)
    return tmp_path / "m.gguf"


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (lambda w: w.add_uint16("split.count", 3), "one of 3 parts; join them with llama-gguf-split --merge"),
        (lambda w: w.add_expert_count(8), "a mixture of 8 experts"),
        (lambda w: w.add_key_length(7), "a head is 7 wide"),
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN), "RoPE scaling 'yarn' is not supported"),
    ],
    ids=["split", "experts", "odd heads", "yarn"],
)
def test_gguf_of_another_kind(
    tmp_path: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    add: Callable[[gguf.GGUFWriter], None],
    says: str,
) -> None:
    """Our own writer with one line of metadata more, or another one."""
    write_header = gguf.GGUFWriter.write_header_to_file

    def with_more(writer: gguf.GGUFWriter) -> None:
        add(writer)
        write_header(writer)

    save_model(language_model(), tmp_path / "model", tokenizer)
    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", _replacing)
    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", with_more)
    write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "f32", "small")
    with pytest.raises(ValueError, match=rf"m\.gguf: .*{says}"):
        open_gguf(tmp_path / "m.gguf")


def _replacing(writer: gguf.GGUFWriter, key: str, value: object, kind: gguf.GGUFValueType, sub: object = None) -> None:
    """`add_key_value` that lets the later of two values stand, where gguf's refuses the second."""
    writer.kv_data[0][key] = gguf.gguf_writer.GGUFValue(value=value, type=kind, sub_type=sub)


def test_gguf_of_a_quantisation_unknown_to_the_library(gguf_file: Path) -> None:
    data = gguf_file.read_bytes()
    at = data.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8  # dimensions, length, then the type
    gguf_file.write_bytes(data[:at] + (250).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(ValueError, match=r"m\.gguf: .*250\)? is not a valid GGMLQuantizationType"):
        open_gguf(gguf_file)


def test_gguf_without_a_tensor_or_with_one_more(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(language_model(), tmp_path / "model", tokenizer)
    write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "f32", "small")
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data.replace(b"blk.1.attn_q.weight", b"blk.1.attn_q.biases"))
    with pytest.raises(ValueError, match=r"m\.gguf: tensor blk\.1\.attn_q\.biases is not part of the model"):
        check(open_gguf(tmp_path / "m.gguf"))


def test_gguf_with_any_byte_of_its_metadata_changed(gguf_file: Path) -> None:
    """Opened, or refused by a message with the file's name: no other exception."""
    whole = gguf_file.read_bytes()
    rng = random.Random(0)
    messages = []
    for _ in range(60):
        at = rng.randrange(8, 2500)
        gguf_file.write_bytes(whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :])
        try:
            open_gguf(gguf_file)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(str(gguf_file) in message for message in messages)


def test_a_gguf_that_cannot_be_finished_leaves_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = language_model()
    with torch.no_grad():
        model.layers[1].feed_forward.w2.weight[0, 0] = 1e6
    save_model(model, tmp_path / "model", tokenizer)
    with pytest.raises(ValueError, match=r"blk\.1\.ffn_down\.weight holds values beyond float16's range"):
        write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "f16", "small")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_llama2c_with_a_tokenizer_of_another_kind(tmp_path: Path) -> None:
    s = settings(tied=True)
    write_bin(tmp_path / "stories.bin", draw_meta_weights(s), s)
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(ValueError, match=r"merges\.txt: expected tokenizer\.bin, tokenizer\.model or tokenizer\.json"):
        open_llama2c(tmp_path / "stories.bin", tmp_path / "merges.txt")
    (tmp_path / "tokenizer.bin").write_bytes(b"\0" * 40)
    with pytest.raises(ValueError, match=r"tokenizer\.bin: "):
        open_llama2c(tmp_path / "stories.bin")
