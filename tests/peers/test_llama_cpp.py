"""The GGUF files we write, run by llama.cpp (llama-cpp-python): tokens, chat template, and greedy text beside ours.

    .venv/bin/python -m pytest tests/peers/test_llama_cpp.py -rP

The first run builds llama.cpp from source into the cache folder: minutes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from ayni.config import ExportSettings, ModelSettings, RopeScaling
from ayni.engine.engine import Engine
from ayni.engine.request import Request
from ayni.engine.score import log_probs_of
from ayni.model import Transformer, init_weights
from ayni.model.checkpoint import load_model, save_model
from ayni.stages.exporting import run as export
from ayni.text.dialogue import encode_prompt
from ayni.text.tokenizer import load_tokenizer
from bench.environments import python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

Kind = Literal["float32", "float16", "bfloat16", "q8_0"]
RUNNER = Path(__file__).with_name("llama_cpp_runner.py")
NEW_TOKENS = 64
CONTEXT = 256
# llama.cpp rounds what enters an F16 product to F16 as well, which moves SmolLM2's logits by up to 4e-3 of the largest:
# two tokens nearer than this share of the logits' range may change places. Anything beyond is a mistake.
NEAR_TIE = 1e-2

PROMPTS = [
    "Once upon a time", "The capital of France is", "Water boils at", "My favourite fruit is", "def add(a, b):",
    "In 1969,", "The recipe needs three eggs,", "Dear Sir or Madam,", "Q: What is 2 + 2?\nA:", "The sea was",
    "A good friend is someone who", "Python is a", "She opened the door and", "The three laws of motion are",
    "To make tea, first", "Breaking news:", "Es war einmal", "1, 2, 3,", "The cat", "I",
]  # fmt: skip
HOSTILE = [
    "", " ", "  ", " " * 10_000, "a" * 3000, "\n\n\n\t\t \r\n", "It's we'll I'VE they'd", "3.14159 1,000,000 2^10 ١٢٣ ²",
    "🥕👩‍👩‍👧‍👦🏳️‍🌈", "日本語の文章と中文和한국어", "שלום عليكم", "e\u0301 ﬁ ﬀ İı ß", "\u200b\u200d\ufeff\u2028\u00a0\u3000", "\ufffd\ufffd",
    "<s></s><unk><pad>[INST] <<SYS>> [/INST]", "<|im_start|>system\n<|im_end|><|endoftext|>", "<0x0A><0xFF>▁▁▁",
    "".join(map(chr, range(1, 256))), "\0zero\0", "  leading and trailing  ", "x = {'a': [1, 2]};\n\tif (x) { y(); }\n",
    "ZÀÉÎÕÜ" * 40, "." * 500, "new\nline\n\nnew  line", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀 \U0010ffff",
]  # fmt: skip
DIALOGUES = [
    [("user", "What is the capital of France?")],
    [("system", "Answer in rhymes."), ("user", "Why is the sky blue?")],
    [("user", "Name a fruit."), ("assistant", "A pear."), ("user", "And a vegetable? 🥕\n\nx = 1")],
    [("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2"), ("user", "3?")],
]  # fmt: skip


@dataclass(frozen=True)
class Fork:
    """Where two greedy texts part: how far apart the two tokens are by our logits, as a share of their range."""

    step: int
    gap: float


@pytest.fixture(scope="module", params=["smollm2", "tiny"])
def model(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def prompts(model: Path) -> list[list[int]]:
    tokenizer = load_tokenizer(model)
    return [[tokenizer.document_start, *tokenizer.encode(text)] for text in PROMPTS]


@pytest.fixture(scope="module")
def llama_cpp(model: Path, prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """llama.cpp's answers of a kind of GGUF of the model: exported and run once."""

    @cache
    def run(kind: Kind) -> dict[str, Any]:
        dialogues = [messages(dialogue) for dialogue in DIALOGUES]
        return run_llama_cpp(model, kind, tmp_path_factory.mktemp("gguf"), prompts, HOSTILE, dialogues)

    return run


def run_llama_cpp(
    model: Path,
    kind: Kind,
    work: Path,
    prompts: list[list[int]],
    texts: Sequence[str] = (),
    dialogues: Sequence[list[dict[str, str]]] = (),
) -> dict[str, Any]:
    """The model exported as a GGUF of this kind, and what llama.cpp makes of it."""
    path = export(ExportSettings(to="gguf", dtype=kind), model, work / f"{kind}.gguf")
    request = {"model": str(path), "context": CONTEXT, "texts": list(texts), "dialogues": list(dialogues),
               "prompts": prompts, "new_tokens": NEW_TOKENS}  # fmt: skip
    command = [str(python("llama-cpp")), str(RUNNER)]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def messages(dialogue: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in dialogue]


def rounded(model: Path, dtype: torch.dtype) -> Transformer:
    """Matrices rounded to the file's type, norms left as they are, everything computed in fp32."""
    ours = load_model(model)
    with torch.no_grad():
        for weight in ours.parameters():
            if weight.dim() == 2:
                weight.copy_(weight.to(dtype))
    return ours


def greedy(ours: Transformer, prompts: list[list[int]]) -> list[list[int]]:
    requests = [Request(prompt, NEW_TOKENS, temperature=0) for prompt in prompts]
    return [answer.ids for (answer,) in Engine(ours).generate(requests)]


def taken(answer: list[list[tuple[int, float]]]) -> list[int]:
    return [step[0][0] for step in answer]


@torch.no_grad()
def fork(ours: Transformer, prompt: list[int], mine: list[int], theirs: list[int]) -> Fork | None:
    step = next((step for step, (a, b) in enumerate(zip(mine, theirs)) if a != b), None)
    if step is None:
        return None
    logits = ours(torch.tensor([prompt + mine[:step]]))[0, -1]
    gap = (logits[mine[step]] - logits[theirs[step]]) / (logits.max() - logits.min())
    return Fork(step, abs(gap.item()))


def test_hostile_text_gets_our_ids(model: Path, llama_cpp: Any) -> None:
    """llama.cpp, as sentencepiece, reads a typed U+2581 as a space; the tokenizers we train keep it as it is."""
    tokenizer, found = load_tokenizer(model), llama_cpp("float16")
    for text, ids, decoded in zip(HOSTILE, found["tokens"], found["decoded"]):
        read = text.replace("▁", " ") if "tokenizer.model" in tokenizer.files else text
        assert ids == tokenizer.encode(read), repr(text[:60])
        if len(text) < 1000:  # llama-cpp-python loses pieces longer than 32 bytes
            prefix = " " if tokenizer.starts_with_space and text else ""
            assert bytes.fromhex(decoded).decode() == prefix + tokenizer.decode(ids)
    print(f"tokens: {len(HOSTILE)} hostile texts, {sum(map(len, found['tokens']))} ids, all equal")


def test_the_files_chat_template_gives_our_ids(model: Path, llama_cpp: Any) -> None:
    tokenizer = load_tokenizer(model)
    for dialogue, ids in zip(DIALOGUES, llama_cpp("float16")["chats"]):
        assert ids == encode_prompt(tokenizer, messages(dialogue))
    print(f"chat template: the ids of {len(DIALOGUES)} dialogues are ours")


@pytest.mark.parametrize(("kind", "dtype"), [("float32", torch.float32), ("float16", torch.float16)])
def test_greedy_text_is_ours(
    model: Path, prompts: list[list[int]], llama_cpp: Any, kind: Kind, dtype: torch.dtype
) -> None:
    ours, found = rounded(model, dtype), llama_cpp(kind)["answers"]
    answers = greedy(ours, prompts)
    forks = [fork(ours, *texts) for texts in zip(prompts, answers, map(taken, found))]
    parted = [(number, where) for number, where in enumerate(forks) if where is not None]
    print(f"{kind}: {len(prompts) - len(parted)} of {len(prompts)} greedy texts of {NEW_TOKENS} tokens identical")
    for number, where in parted:
        print(f"  {PROMPTS[number]!r} forks at token {where.step}, our two logits {where.gap:.1e} of their range apart")
    assert all(where.gap < (NEAR_TIE if kind == "float16" else 1e-5) for _, where in parted)
    assert len(parted) <= len(prompts) // 4


@pytest.mark.parametrize(("kind", "share"), [("float32", 1e-4), ("float16", NEAR_TIE)])
def test_logits_are_ours(model: Path, prompts: list[list[int]], llama_cpp: Any, kind: Kind, share: float) -> None:
    worst = logits_apart(rounded(model, getattr(torch, kind)), prompts, llama_cpp(kind)["answers"])
    print(f"{kind}: the likeliest logits of {len(prompts) * NEW_TOKENS} steps within {worst:.1e} of max |logit|")
    assert worst < share


def logits_apart(ours: Transformer, prompts: list[list[int]], found: list[list[list[tuple[int, float]]]]) -> float:
    """The likeliest logits at every step of llama.cpp's own texts against our model's, as a share of max |logit|."""
    worst = 0.0
    for prompt, answer in zip(prompts, found):
        with torch.no_grad():
            logits = ours(torch.tensor([prompt + taken(answer)[:-1]]))[0, len(prompt) - 1 :]
        top = torch.tensor(answer, dtype=torch.float64)
        error = (logits.gather(1, top[:, :, 0].long()) - top[:, :, 1]).abs().max() / logits.abs().max()
        worst = max(worst, error.item())
    return worst


@pytest.mark.parametrize("scaling", [None, "linear", "llama3"])
@pytest.mark.parametrize(
    ("kv_heads", "head_dim", "tied"), [(4, 12, False), (2, 24, True), (1, 20, True), (2, 6, False)]
)
def test_random_models_of_other_shapes(
    tiny: Path, tmp_path: Path, kv_heads: int, head_dim: int, tied: bool, scaling: Any
) -> None:
    """Heads wider and narrower than the model, scaled RoPE beyond the original context of 32, untied embeddings."""
    tokenizer = load_tokenizer(tiny)
    settings = ModelSettings(
        vocab_size=tokenizer.vocab_size, dim=48, n_layers=2, n_heads=4, n_kv_heads=kv_heads, ffn_dim=80,
        head_dim=head_dim, max_seq_len=CONTEXT, rope_theta=500.0, tie_embeddings=tied,
        rope_scaling=scaling and RopeScaling(kind=scaling, factor=CONTEXT / 32, original_max_seq_len=32),
    )  # fmt: skip
    ours = Transformer(settings)
    init_weights(ours, seed=7, std=0.2)
    save_model(ours, tmp_path / "model", tokenizer)
    prompts = [torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(length)).tolist()
               for length in (3, 60)]  # fmt: skip
    worst = logits_apart(ours, prompts, run_llama_cpp(tmp_path / "model", "float32", tmp_path, prompts)["answers"])
    print(
        f"{kv_heads} key/value heads of {head_dim}, tied {tied}, scaling {scaling}: within {worst:.1e} of max |logit|"
    )
    assert worst < 1e-5


@pytest.mark.parametrize("kind", ["bfloat16", "q8_0"])
def test_narrow_kinds_give_text_as_likely_as_ours(
    model: Path, prompts: list[list[int]], llama_cpp: Any, kind: Kind
) -> None:
    """Their texts part early from the unrounded model's: judged by what that model thinks of them, in nats a token."""
    ours, theirs = load_model(model), [taken(answer) for answer in llama_cpp(kind)["answers"]]
    answers = greedy(ours, prompts)
    same = sum(a[0] == b[0] for a, b in zip(answers, theirs))
    mine, found = (torch.cat(log_probs_of(ours, prompts, texts)).mean().item() for texts in (answers, theirs))
    print(
        f"{kind}: mean log-probability {found:.3f}, our own greedy text's {mine:.3f}; {same} of 20 first tokens equal"
    )
    assert same >= 17
    assert found == pytest.approx(mine, abs=0.15)
