"""Meta's release layout: joined along the axes that its parallel layers cut, computed as its own code computes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ayni.config import ModelSettings, RopeScaling
from ayni.model.checkpoint import check, load_model, open_checkpoint, save_model, write_checkpoint
from ayni.model.meta import open_meta, write_meta
from ayni.text.tokenizer import Tokenizer, load_tokenizer

from .interleaved import draw_meta_weights, meta_logits
from .small import language_model, relative_error, scalar_model, settings, tokens

ROWS, COLUMNS = ("wq", "wk", "wv", "w1", "w3", "output"), ("wo", "w2")


def write_release(directory: Path, weights: dict[str, Tensor], s: ModelSettings, parts: int, by_width: bool) -> None:
    """As Meta's training code would save `parts` ranks."""
    directory.mkdir()
    for part in range(parts):
        cut = {}
        for name, weight in weights.items():
            kind = name.split(".")[-2]
            axis = 0 if kind in ROWS or (kind == "tok_embeddings" and not by_width) else None
            axis = 1 if kind in COLUMNS or (kind == "tok_embeddings" and by_width) else axis
            cut[name] = weight if axis is None else weight.chunk(parts, axis)[part].clone()
        cut["rope.freqs"] = torch.ones(s.d_head // 2)
        torch.save(cut, directory / f"consolidated.{part:02}.pth")
    params = {"dim": s.dim, "multiple_of": 256, "n_heads": s.n_heads, "n_layers": s.n_layers, "norm_eps": s.norm_eps,
              "vocab_size": -1, "n_kv_heads": s.n_kv_heads}  # fmt: skip
    (directory / "params.json").write_text(json.dumps(params))


@pytest.mark.parametrize("by_width", [True, False], ids=["Llama 2 embedding", "Llama 3 embedding"])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_logits_are_those_of_metas_equations(parts: int, by_width: bool, tmp_path: Path, tokenizer: Tokenizer) -> None:
    s = settings(n_kv_heads=4)
    weights = draw_meta_weights(s)
    write_release(tmp_path / "release", weights, s, parts, by_width)
    tokenizer.save(tmp_path / "release")
    opened = open_meta(tmp_path / "release", max_seq_len=128)
    write_checkpoint(opened, tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert not model.settings.tie_embeddings
    x = tokens(1, 40)[0]
    with torch.no_grad():
        assert relative_error(model(x[None])[0], meta_logits(weights, s, x)) < 1e-5


@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_trap_15_keys_of_fewer_heads_are_unpermuted_by_their_own_number(
    n_kv_heads: int, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    s = settings(n_kv_heads=n_kv_heads)
    weights = draw_meta_weights(s)
    write_release(tmp_path / "release", weights, s, 1, by_width=True)
    tokenizer.save(tmp_path)  # one level up, as in the releases of Llama 1
    write_checkpoint(open_meta(tmp_path / "release"), tmp_path / "model")
    x = tokens(1, 40)[0]
    with torch.no_grad():
        assert relative_error(load_model(tmp_path / "model")(x[None])[0], meta_logits(weights, s, x)) < 1e-5


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_out_and_in_again_is_the_same_to_the_bit(
    tied: bool, parts: int, dtype: torch.dtype, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    save_model(language_model(tied=tied).to(dtype), tmp_path / "model", tokenizer)
    opened = open_checkpoint(tmp_path / "model")
    write_meta(opened, tmp_path / "away", tokenizer, parts)
    back = open_meta(tmp_path / "away", max_seq_len=128)
    check(back)
    assert back.settings.model_copy(update={"head_dim": 12}) == opened.settings
    assert back.dtype == dtype
    assert all(torch.equal(back.read(name), opened.read(name)) for name in opened.tensors)
    assert back.tokenizer_files["tokenizer.model"] == tokenizer.files["tokenizer.model"]


def test_what_we_write_is_what_metas_equations_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = language_model()
    save_model(model, tmp_path / "model", tokenizer)
    write_meta(open_checkpoint(tmp_path / "model"), tmp_path / "away", tokenizer)
    weights = torch.load(tmp_path / "away" / "consolidated.00.pth", weights_only=True)
    x = tokens(1, 40)[0]
    with torch.no_grad():
        assert relative_error(model(x[None])[0], meta_logits(weights, model.settings, x)) < 1e-5


@pytest.mark.parametrize("ffn", [80, 96, 128, 176, 333, 512, 11_008])
def test_the_feed_forward_width_follows_from_params_by_metas_rule(ffn: int, tmp_path: Path) -> None:
    save_model(language_model(n_kv_heads=2, ffn_dim=ffn), tmp_path / "model")
    write_meta(open_checkpoint(tmp_path / "model"), tmp_path / "away", None)
    params = json.loads((tmp_path / "away" / "params.json").read_text())
    hidden = int(2 * (4 * params["dim"]) / 3)  # Meta's FeedForward.__init__
    if params.get("ffn_dim_multiplier") is not None:
        hidden = int(params["ffn_dim_multiplier"] * hidden)
    multiple = params["multiple_of"]
    assert multiple * ((hidden + multiple - 1) // multiple) == ffn


def test_llama_3_1_scaling_is_named_by_a_flag(tmp_path: Path, tokenizer: Tokenizer) -> None:
    s = settings(n_kv_heads=4)
    write_release(tmp_path / "release", draw_meta_weights(s), s, 1, by_width=False)
    tokenizer.save(tmp_path / "release")
    edit(tmp_path / "release", use_scaled_rope=True, rope_theta=500_000.0)
    scaling = open_meta(tmp_path / "release").settings.rope_scaling
    assert scaling is not None
    assert (scaling.kind, scaling.factor, scaling.original_max_seq_len) == ("llama3", 8.0, 8192)
    assert (scaling.low_freq_factor, scaling.high_freq_factor) == (1.0, 4.0)


def edit(directory: Path, **changes: object) -> None:
    path = directory / "params.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop(directory: Path, name: str, part: int) -> None:
    path = directory / f"consolidated.{part:02}.pth"
    weights = torch.load(path, weights_only=True)
    del weights[name]
    torch.save(weights, path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Surprise:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("unpickled",)


def put_object(directory: Path) -> None:
    with (directory / "consolidated.00.pth").open("wb") as file:
        pickle.dump({"norm.weight": Surprise()}, file)


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part is gone": (lambda d: (d / "consolidated.00.pth").unlink(), r"consolidated\.00\.pth: missing, though consolidated\.01"),
    "truncated": (lambda d: truncate(d / "consolidated.01.pth"), r"consolidated\.01\.pth: truncated"),
    "a bare pickle": (put_object, r"consolidated\.00\.pth: (truncated, or not written by torch\.save|holds more than tensors)"),
    "no params": (lambda d: (d / "params.json").unlink(), r"params\.json: missing"),
    "params lack dim": (lambda d: (d / "params.json").write_text('{"n_heads": 4}'), r"params\.json: 'dim' is missing"),
    "a mixture of experts": (lambda d: edit(d, moe_args={}), r"params\.json: 'moe_args' is not a parameter of a Llama"),
    "vocabulary": (lambda d: edit(d, vocab_size=299), r"params\.json: vocab_size is 299, but tok_embeddings\.weight has 300"),
    "a tensor is gone": (lambda d: drop(d, "layers.1.ffn_norm.weight", 0), r"layers\.1\.ffn_norm\.weight\) is missing \(1 in all\)"),
    "in one part alone": (lambda d: drop(d, "layers.1.ffn_norm.weight", 1), r"consolidated\.01\.pth: tensor layers\.1\.ffn_norm\.weight is missing"),
    "heads": (lambda d: edit(d, n_kv_heads=2), r"layers\.0\.attention\.wk\.weight: .* shape \(24, 48\), found \(48, 48\)"),
    "tiktoken": (lambda d: (d / "tokenizer.model").write_text("IQ== 0\nIg== 1\n"), "Llama 3's list of byte strings"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_named(
    mistake: str, tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    s = settings(n_kv_heads=4)
    directory = tmp_path / "release"
    write_release(directory, draw_meta_weights(s), s, 2, by_width=True)
    (directory / "tokenizer.model").write_bytes(tokenizer.files["tokenizer.model"])
    check(open_meta(directory))
    breaks, says = MISTAKES[mistake]
    breaks(directory)
    with pytest.raises(ValueError, match=says):
        check(open_meta(directory))
    assert "unpickled" not in capsys.readouterr().out


def test_what_the_layout_cannot_say_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(scalar_model(), tmp_path / "reward")
    save_model(language_model(head_dim=16), tmp_path / "wide")
    save_model(language_model(), tmp_path / "model")
    for name, parts, says in (
        ("reward", 1, "a reward model has no place"),
        ("wide", 1, "heads of 16 x 4 in a width of 48"),
        ("model", 5, "2 key/value heads do not divide into 5 parts"),
    ):
        with pytest.raises(ValueError, match=says):
            write_meta(open_checkpoint(tmp_path / name), tmp_path / "away", tokenizer, parts)
    assert not (tmp_path / "away").exists()
    with pytest.raises(ValueError, match=r"no tokenizer\.model"):
        write_meta(open_checkpoint(tmp_path / "model"), tmp_path / "away", of_json_alone(tokenizer, tmp_path / "json"))
    assert not (tmp_path / "away").exists()


def of_json_alone(tokenizer: Tokenizer, directory: Path) -> Tokenizer:
    tokenizer.save(directory)
    (directory / "tokenizer.model").unlink()
    return load_tokenizer(directory)


def test_parts_of_several_types_are_widened_not_narrowed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    s = settings(n_kv_heads=4)
    weights = {name: w.bfloat16() if w.ndim == 1 else w for name, w in draw_meta_weights(s).items()}
    write_release(tmp_path / "release", weights, s, 1, by_width=True)
    tokenizer.save(tmp_path / "release")
    opened = open_meta(tmp_path / "release")
    assert opened.dtype == torch.float32
    write_checkpoint(opened, tmp_path / "model")
    w2 = load_model(tmp_path / "model").layers[1].feed_forward.w2.weight
    assert torch.equal(w2, weights["layers.1.feed_forward.w2.weight"])


def test_llama_3s_list_of_byte_strings_gives_way_to_tokenizer_json(tmp_path: Path, tokenizer: Tokenizer) -> None:
    s = settings(n_kv_heads=4)
    write_release(tmp_path / "release", draw_meta_weights(s), s, 1, by_width=False)
    tokenizer.save(tmp_path / "json")
    (tmp_path / "json" / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    write_checkpoint(open_meta(tmp_path / "release", tmp_path / "json"), tmp_path / "model")
    text = "the ant number 12 saw a bee"
    assert load_tokenizer(tmp_path / "model").encode(text) == tokenizer.encode(text)


def test_llama_3_1_scaling_goes_out_and_comes_in(tmp_path: Path, tokenizer: Tokenizer) -> None:
    scaling = RopeScaling(kind="llama3", factor=8.0, original_max_seq_len=8192)
    save_model(language_model(rope_scaling=scaling, rope_theta=500_000.0), tmp_path / "model", tokenizer)
    write_meta(open_checkpoint(tmp_path / "model"), tmp_path / "away", tokenizer)
    assert json.loads((tmp_path / "away" / "params.json").read_text())["use_scaled_rope"] is True
    assert open_meta(tmp_path / "away").settings.rope_scaling == scaling


def test_a_shared_embedding_is_stored_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    sizes = {}
    for tied in (False, True):
        save_model(language_model(tied=tied), tmp_path / f"{tied}", tokenizer)
        write_meta(open_checkpoint(tmp_path / f"{tied}"), tmp_path / f"away-{tied}", tokenizer)
        sizes[tied] = (tmp_path / f"away-{tied}" / "consolidated.00.pth").stat().st_size
    assert 0 <= sizes[False] - sizes[True] - 300 * 48 * 4 < 1000  # the rest is the table of contents
