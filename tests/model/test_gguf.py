"""A tiny random GGUF, written with gguf's own writer as llama.cpp's converter would write it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from ayni.config import RopeScaling
from ayni.model.checkpoint import check, check_vocabulary, load_model, open_checkpoint, save_model, write_checkpoint
from ayni.model.gguf import open_gguf
from ayni.model.gguf_writer import write_gguf as our_write_gguf
from ayni.model.transformer import Transformer
from ayni.text.dialogue import encode_prompt
from ayni.text.tokenizer import Tokenizer, load_tokenizer

from .small import language_model, relative_error, scalar_model, tokens

LAYER = {"attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv", "attn_output": "attention.wo",
         "ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2",
         "attn_norm": "attention_norm", "ffn_norm": "ffn_norm"}  # fmt: skip
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's convert_hf_to_gguf.py, word for word in numpy."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def byte_letters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in keep] + [chr(256 + n) for n in range(256 - len(keep))]


def write_gguf(
    path: Path,
    model: Transformer,
    kind: Kind,
    changes: dict[str, object] | None = None,
    pack: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Writes the file and returns what each matrix is after gguf's own dequantisation, in GGUF's layout."""
    s = model.settings
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(s.n_layers)
    writer.add_context_length(s.max_seq_len)
    writer.add_embedding_length(s.dim)
    writer.add_feed_forward_length(s.ffn_dim)
    writer.add_head_count(s.n_heads)
    writer.add_head_count_kv(s.n_kv_heads)
    writer.add_layer_norm_rms_eps(s.norm_eps)
    writer.add_rope_freq_base(s.rope_theta)
    writer.add_rope_dimension_count(s.d_head)
    pieces = [*SPECIALS, *byte_letters(), "he", "Ġhe"]
    pieces += [f"[unused{n}]" for n in range(s.vocab_size - len(pieces))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(pieces)
    writer.add_token_types([3] * 3 + [1] * (s.vocab_size - 3))
    writer.add_token_merges(["h e", "Ġ he"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    for key, value in (changes or {}).items():
        writer.add_string(key, str(value))
    values: dict[str, np.ndarray] = {}
    for name, tensor in model.state_dict().items():
        if name == "output.weight" and s.tie_embeddings:
            continue
        parts = name.removesuffix(".weight").split(".", 2)
        outer = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
        inner = {ours: theirs for theirs, ours in LAYER.items()}
        foreign = f"blk.{parts[1]}.{inner[parts[2]]}.weight" if parts[0] == "layers" else f"{outer[parts[0]]}.weight"
        array = tensor.numpy()
        if "attn_q." in foreign or "attn_k." in foreign:
            array = permute(array, s.n_heads if "attn_q." in foreign else s.n_kv_heads)
        if array.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(foreign, array)
            values[foreign] = array
        else:
            packed = pack(array) if pack else gguf.quants.quantize(array, kind)
            writer.add_tensor(foreign, packed, raw_dtype=kind)
            values[foreign] = packed if kind == Kind.Q2_K else gguf.quants.dequantize(packed, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def import_gguf(path: Path, out: Path) -> None:
    opened = open_gguf(path)
    check(opened)
    write_checkpoint(opened, out)


def source_model(tied: bool = True, n_kv_heads: int = 2) -> Transformer:
    return language_model(n_kv_heads, tied, dim=64, ffn_dim=96, rope_theta=100_000.0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_trap_15_fp32_file_gives_the_same_logits(tmp_path: Path, n_kv_heads: int, tied: bool) -> None:
    model = source_model(tied, n_kv_heads)
    write_gguf(tmp_path / "m.gguf", model, Kind.F32)
    import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    loaded = load_model(tmp_path / "out")
    x = tokens(2, 30)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
        theirs = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        assert relative_error(loaded(x), theirs(x).logits) < 1e-5
    assert loaded.settings.tie_embeddings == tied


@pytest.mark.parametrize(
    "kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1], ids=lambda kind: kind.name
)
def test_values_are_those_of_gguf_itself(tmp_path: Path, kind: Kind) -> None:
    model = source_model()
    values = write_gguf(tmp_path / "m.gguf", model, kind)
    import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    state = load_model(tmp_path / "out").state_dict()
    for layer in range(2):
        for theirs, ours in LAYER.items():
            found = state[f"layers.{layer}.{ours}.weight"].numpy()
            if theirs in ("attn_q", "attn_k"):
                found = permute(found, 4 if theirs == "attn_q" else 2)
            assert np.array_equal(found, values[f"blk.{layer}.{theirs}.weight"]), theirs
    assert np.array_equal(state["tok_embeddings.weight"].numpy(), values["token_embd.weight"])


def test_tokenizer_from_the_metadata(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", source_model(), Kind.F32)
    import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    tok = load_tokenizer(tmp_path / "out")
    check_vocabulary(load_model(tmp_path / "out").settings, tok, "out")
    assert tok.dialogue == "chatml"
    assert (tok.bos_id, tok.eos_id, tok.pad_id) == (1, 2, 0)  # its own padding token is EOS (TRAPS 10)
    letters = {piece: i for i, piece in enumerate([*SPECIALS, *byte_letters()])}
    he, space_he = len(letters), len(letters) + 1
    assert tok.encode("he 12 he") == [he, letters["Ġ"], letters["1"], letters["2"], space_he]
    text = "<|im_start|> 日本 🎉\n\n\x00 12"
    assert tok.decode(tok.encode(text)) == text
    assert not set(tok.encode(text)) & {0, 1, 2}
    messages = [{"role": "system", "content": "be he"}, {"role": "user", "content": "he 1"}]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    found = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert list(found) == encode_prompt(tok, messages)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "RoPE scaling 'yarn' is not supported"),
        (
            {"tokenizer.ggml.pre": "qwen2"},
            "pre-tokenizer 'qwen2' is not supported; expected 'gpt2' with one of gpt-2, smollm",
        ),
        ({"general.architecture": "phi3"}, "architecture is 'phi3'; supported is only 'llama'"),
    ],
)
def test_what_is_not_supported_is_said(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    write_gguf(tmp_path / "m.gguf", source_model(), Kind.F32, changes)
    with pytest.raises(ValueError, match=rf"m\.gguf: .*{says}"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "out")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.6])
def test_truncated_file_is_one_clear_error(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, source_model(), Kind.F32)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"m\.gguf: truncated or not a GGUF file"):
        import_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.gguf: no such file"):
        import_gguf(tmp_path / "absent.gguf", tmp_path / "out")


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q5_K, Kind.Q6_K], ids=lambda kind: kind.name)
def test_k_quants_are_read_as_gguf_reads_them(tmp_path: Path, kind: Kind) -> None:
    """gguf can read these but not write them: blocks of random bits with small scales, in rows of 256."""
    model = language_model(2, True, dim=256, ffn_dim=512, n_layers=1)
    rng = np.random.default_rng(0)
    block, size = gguf.GGML_QUANT_SIZES[kind]

    def random_blocks(weight: np.ndarray) -> np.ndarray:
        data = rng.integers(0, 256, (*weight.shape[:-1], weight.shape[-1] // block, size), np.uint8)
        scales = {Kind.Q4_K: [0, 2], Kind.Q5_K: [0, 2], Kind.Q6_K: [size - 2]}[kind]
        for at in scales:
            data[..., at : at + 2] = np.float16(0.01).reshape(1).view(np.uint8)
        return data.reshape(*weight.shape[:-1], -1)

    values = write_gguf(tmp_path / "m.gguf", model, kind, pack=random_blocks)
    opened = open_gguf(tmp_path / "m.gguf")
    check(opened)
    assert opened.dtype == torch.float32
    found = opened.read("layers.0.feed_forward.w2.weight").numpy()
    assert np.array_equal(found, values["blk.0.ffn_down.weight"])
    assert found.std() > 0.01
    assert np.array_equal(
        permute(opened.read("layers.0.attention.wk.weight").numpy(), 2), values["blk.0.attn_k.weight"]
    )


def test_types_outside_the_list_are_named(tmp_path: Path) -> None:
    model = language_model(2, True, dim=256, ffn_dim=512, n_layers=1)
    write_gguf(
        tmp_path / "m.gguf", model, Kind.Q2_K, pack=lambda w: np.zeros((w.shape[0], w.shape[1] // 256 * 84), np.uint8)
    )
    with pytest.raises(ValueError, match=r"m\.gguf: tensor .* is Q2_K; supported are BF16, F16, F32, Q4_0"):
        open_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("tied", [False, True])
def test_what_we_write_comes_back_to_the_bit(tmp_path: Path, tokenizer: Tokenizer, kind: str, tied: bool) -> None:
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    save_model(language_model(2, tied, rope_theta=500_000.0).to(dtype), tmp_path / "model", tokenizer)
    opened = open_checkpoint(tmp_path / "model")
    our_write_gguf(opened, tmp_path / "m.gguf", tokenizer, kind, "small")
    back = open_gguf(tmp_path / "m.gguf")
    check(back)
    assert (back.settings, back.dtype) == (opened.settings, dtype)
    assert all(torch.equal(back.read(name), opened.read(name)) for name in opened.tensors)


def test_q8_0_is_ggufs_own_quantisation_and_short_rows_stay_f16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = language_model(2, False, dim=64, ffn_dim=80)
    save_model(model, tmp_path / "model", tokenizer)
    our_write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "q8_0", "small")
    kinds = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == Kind.Q8_0
    assert kinds["blk.0.ffn_down.weight"] == Kind.F16  # rows of 80 are no multiple of 32
    assert kinds["blk.0.attn_norm.weight"] == Kind.F32
    weight = model.layers[1].feed_forward.w1.weight.detach().numpy()
    wanted = gguf.quants.dequantize(gguf.quants.quantize(weight, Kind.Q8_0), Kind.Q8_0)
    assert np.array_equal(open_gguf(tmp_path / "m.gguf").read("layers.1.feed_forward.w1.weight").numpy(), wanted)


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling(kind="linear", factor=2.0, original_max_seq_len=64),
        RopeScaling(kind="llama3", factor=8.0, original_max_seq_len=32),
    ],
    ids=lambda scaling: scaling.kind,
)
def test_rope_scaling_goes_out_and_comes_in(tmp_path: Path, tokenizer: Tokenizer, scaling: RopeScaling) -> None:
    save_model(language_model(rope_scaling=scaling), tmp_path / "model", tokenizer)
    opened = open_checkpoint(tmp_path / "model")
    our_write_gguf(opened, tmp_path / "m.gguf", tokenizer, "f32", "small")
    assert open_gguf(tmp_path / "m.gguf").settings == opened.settings
    tables = [
        tensor.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors if tensor.name == "rope_freqs.weight"
    ]
    assert len(tables) == (scaling.kind == "llama3")


def test_what_gguf_cannot_say_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    dynamic = RopeScaling(kind="dynamic", factor=2.0, original_max_seq_len=64)
    save_model(scalar_model(), tmp_path / "reward")
    save_model(language_model(rope_scaling=dynamic), tmp_path / "dynamic")
    for name, says in (("reward", "a reward model has no place in GGUF"), ("dynamic", "no dynamic RoPE scaling")):
        with pytest.raises(ValueError, match=says):
            our_write_gguf(open_checkpoint(tmp_path / name), tmp_path / "m.gguf", tokenizer, "f16", "small")
    assert not (tmp_path / "m.gguf").exists()


def test_a_factor_without_a_type_is_linear_scaling(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As llama.cpp takes it; the factor comes back as the decimal number that was meant."""
    scaling = RopeScaling(kind="linear", factor=2.3, original_max_seq_len=64)
    save_model(language_model(rope_scaling=scaling), tmp_path / "model", tokenizer)
    monkeypatch.setattr(gguf.GGUFWriter, "add_rope_scaling_type", lambda writer, kind: None)
    our_write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "f32", "small")
    assert open_gguf(tmp_path / "m.gguf").settings.rope_scaling == scaling


def test_llama_3s_table_is_that_of_llama_cpps_converter(tmp_path: Path, tokenizer: Tokenizer) -> None:
    scaling = RopeScaling(kind="llama3", factor=32.0, original_max_seq_len=8192)
    model = language_model(rope_scaling=scaling, rope_theta=500_000.0, head_dim=64)
    save_model(model, tmp_path / "model", tokenizer)
    our_write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "f32", "small")
    wanted = []
    for i in range(32):
        wavelength = 2 * math.pi * 500_000.0 ** (2 * i / 64)
        if wavelength < 8192 / 4:
            wanted.append(1.0)
        elif wavelength > 8192:
            wanted.append(32.0)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            wanted.append(1 / ((1 - smooth) / 32 + smooth))
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    (table,) = [tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    assert np.allclose(table, wanted, rtol=1e-5)
    assert len({*table.tolist()} - {1.0, 32.0}) > 2  # the smooth stretch in between is tested too
    assert "llama.rope.scaling.factor" not in reader.fields  # llama.cpp would divide every frequency by it as well


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_reads_what_we_write(tmp_path: Path, tokenizer: Tokenizer, n_kv_heads: int, tied: bool) -> None:
    model = language_model(n_kv_heads, tied, rope_theta=500_000.0)
    save_model(model, tmp_path / "model", tokenizer)
    our_write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "f32", "small")
    config = LlamaConfig(**load_gguf_checkpoint(tmp_path / "m.gguf")["config"])
    theirs = LlamaForCausalLM(config).eval()
    read = load_gguf_checkpoint(tmp_path / "m.gguf", return_tensors=True, model_to_load=theirs)["tensors"]
    problems = theirs.load_state_dict(read, strict=False)
    assert not problems.unexpected_keys
    assert problems.missing_keys == (["lm_head.weight"] if tied else [])
    theirs.tie_weights()
    x = tokens(2, 30)
    with torch.no_grad():
        assert relative_error(model(x), theirs(x).logits) < 1e-5


def test_metadata_is_what_llama_cpps_converter_writes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(language_model(), tmp_path / "model", tokenizer)
    our_write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "bf16", "small")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    found = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
    found = {name: value for name, value in found.items() if not name.startswith("GGUF.")}
    assert found == {
        "general.architecture": "llama", "general.type": "model", "general.name": "small", "general.file_type": 32,
        "general.quantization_version": 2, "llama.vocab_size": 300, "llama.context_length": 128,
        "llama.embedding_length": 48, "llama.block_count": 2, "llama.feed_forward_length": 80,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.attention.key_length": 12,
        "llama.attention.value_length": 12, "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "llama.rope.freq_base": 10_000.0, "llama.rope.dimension_count": 12,
    }  # fmt: skip


def test_an_embedding_padded_beyond_the_tokenizer_pads_the_list_of_pieces(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = language_model(vocab_size=304)
    save_model(model, tmp_path / "model", tokenizer)
    our_write_gguf(open_checkpoint(tmp_path / "model"), tmp_path / "m.gguf", tokenizer, "f32", "small")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.tokens"].contents()[299:] == [
        tokenizer_piece(tokenizer, 299), "[PAD300]", "[PAD301]", "[PAD302]", "[PAD303]",
    ]  # fmt: skip
    assert len(fields["tokenizer.ggml.scores"].contents()) == len(fields["tokenizer.ggml.token_type"].contents()) == 304
    import_gguf(tmp_path / "m.gguf", tmp_path / "back")
    text = "the ant number 12 saw a bee 🐜"
    assert load_tokenizer(tmp_path / "back").encode(text) == tokenizer.encode(text)
    x = tokens(1, 20)
    assert torch.equal(load_model(tmp_path / "back")(x), model(x))


def tokenizer_piece(tokenizer: Tokenizer, number: int) -> str:
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer.files["tokenizer.model"]).IdToPiece(number)


def test_norms_that_do_not_fit_the_matrices_type_widen_the_model(tmp_path: Path) -> None:
    """What was trained or merged in float32 and stored as F16 keeps its float32 norms; nothing is rounded."""
    model = source_model()  # its norms are random float32 numbers
    write_gguf(tmp_path / "m.gguf", model, Kind.F16)
    opened = open_gguf(tmp_path / "m.gguf")
    assert opened.dtype == torch.float32
    assert torch.equal(opened.read("norm.weight"), model.norm.weight)
