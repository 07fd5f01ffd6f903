"""The chat page in a real Chromium: before the real server with small random models, and before a scripted one where
the words must be known."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page

from ayni.config import ModelSettings
from ayni.model import ScalarHead, Transformer, init_weights
from ayni.model.checkpoint import save_model
from ayni.serve.app import create_app
from ayni.text.sources import read_chats
from ayni.text.tokenizer import train_tokenizer
from tests.chromium import needs_chromium

from .scripted import HOSTILE, Script, serving

pytestmark = needs_chromium


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """opened(address, **context options): the page, which must not have complained by the end of the test."""
    contexts, complaints = [], []

    def complain(message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # a refusal that a test wants
            complaints.append(message.text)

    def open_page(address: str, **options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", complain)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two language models and a reward model."""
    directory = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["an ant and a bee, a cat and an eel"] * 9, directory / "tokenizer", vocab_size=280)
    settings = ModelSettings(vocab_size=280, dim=32, n_layers=1, n_heads=2, n_kv_heads=2, ffn_dim=64, max_seq_len=8192)
    for seed, name in enumerate(("one", "two")):
        model = Transformer(settings)
        init_weights(model, seed, std=0.25)
        with torch.no_grad():
            model.output.weight[list(tokenizer.specials.values())] = 0.0  # never the likeliest of so many
        save_model(model, directory / name, tokenizer)
    save_model(ScalarHead.from_language_model(model), directory / "judge", tokenizer)
    with serving(create_app([directory / "one", directory / "two"], [directory / "judge"])) as address:
        yield address


@pytest.fixture(scope="module")
def scripted_server() -> Iterator[tuple[Script, str]]:
    script = Script()
    with serving(script.app) as address:
        yield script, address


@pytest.fixture
def scripted(scripted_server: tuple[Script, str]) -> tuple[Script, str]:
    script, _ = scripted_server
    script.requests.clear()
    script.hung_up.clear()
    script.key = None
    return scripted_server


def ask(page: Page, text: str) -> None:
    """Asks and waits for the end of the answer."""
    page.fill("#box", text)
    page.press("#box", "Enter")
    finished(page)


def finished(page: Page) -> None:
    until(
        page,
        "!document.querySelector('.coming') && document.getElementById('stop').hidden && !!document.querySelector('.answer, .note')",
    )


def until(page: Page, condition: str) -> None:
    """Playwright's own wait_for_function evaluates a string in the page, which the page's security policy forbids."""
    deadline = time.monotonic() + 60  # on a machine that does much else
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never came true: {condition}"
        time.sleep(0.02)


def dialogue(page: Page, column: int = 0) -> list[tuple[str, str]]:
    """(who, text) of every turn that a column shows."""
    return page.evaluate(
        """column => [...document.querySelectorAll('.column')[column].querySelectorAll('.turn')].map(
             turn => [turn.classList.contains('user') ? 'user' : 'assistant', turn.querySelector('.said').textContent])""",
        column,
    )


def greedy(page: Page, tokens: int = 8) -> None:
    """Greedy, which these models never end by themselves."""
    page.click("#settings-toggle")
    page.fill("#max-tokens", str(tokens))
    page.fill("#temperature", "0")
    page.click("#settings-toggle")


def downloaded(page: Page, path: Path) -> list[dict[str, Any]]:
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "dialogue.jsonl"
    download.value.save_as(path)
    return read_chats(path)


def figure(address: str, name: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


# Before the real server


def test_a_dialogue_is_answered_scored_retried_edited_and_downloaded(real: str, opened: Any, tmp_path: Path) -> None:
    page = opened(real)
    page.wait_for_selector("text=Ask one")
    greedy(page)
    ask(page, "an ant")
    ask(page, "a bee\nand a cat")
    until(page, "document.querySelectorAll('.figures')[1].textContent.includes('judge ')")
    figures = page.inner_text(".answer:last-child .figures")
    assert "8 tokens" in figures
    assert "about" not in figures
    assert "tokens/s" in figures
    assert "cut at the longest answer" in figures
    shown = dialogue(page)
    assert [who for who, _ in shown] == ["user", "assistant"] * 2
    assert shown[2][1] == "a bee\nand a cat"

    (row,) = downloaded(page, tmp_path / "dialogue.jsonl")
    assert row["model"] == "one"
    assert [(message["role"], message["content"]) for message in row["messages"]] == [tuple(turn) for turn in shown]

    page.reload()
    page.wait_for_selector("#send:not([hidden])")
    assert dialogue(page) == shown
    page.click(".answer:last-child .retry")
    finished(page)
    assert dialogue(page) == shown  # greedy: the same answer to the same messages

    page.click(".user .edit >> nth=0")
    page.fill(".editing textarea", "an eel")
    page.press(".editing textarea", "Enter")
    finished(page)
    edited = dialogue(page)
    assert len(edited) == 2
    assert edited[0] == ["user", "an eel"]
    page.click("#new")
    assert dialogue(page) == []
    assert page.is_visible("text=Ask one")
    assert page.is_disabled("#download")


def test_stopping_keeps_the_words_and_frees_the_slot(real: str, opened: Any) -> None:
    page = opened(real)
    greedy(page, tokens=8000)
    page.fill("#box", "an ant")
    page.press("#box", "Enter")
    until(page, "document.querySelector('.coming .said')?.textContent.length > 20")
    assert figure(real, "ayni_running_sequences") == 1
    page.press("#box", "Escape")
    finished(page)
    assert "stopped" in page.inner_text(".answer .figures")
    kept = dialogue(page)[1][1]
    assert len(kept) > 20
    deadline = time.monotonic() + 5
    while figure(real, "ayni_running_sequences") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert figure(real, "ayni_running_sequences") == 0
    greedy(page)
    ask(page, "a bee")
    assert dialogue(page)[1] == ["assistant", kept]
    assert len(dialogue(page)) == 4


def test_two_models_side_by_side(real: str, opened: Any, tmp_path: Path) -> None:
    page = opened(real, color_scheme="dark")
    greedy(page)
    ask(page, "an ant")
    page.click("#compare")
    page.click("text=Ask the question here too")
    finished(page)
    ask(page, "a bee")
    left, right = dialogue(page, 0), dialogue(page, 1)
    assert [turn[1] for turn in left[::2]] == [turn[1] for turn in right[::2]] == ["an ant", "a bee"]
    assert left[1] != right[1]
    rows = downloaded(page, tmp_path / "both.jsonl")
    assert [row["model"] for row in rows] == ["one", "two"]
    for row, shown in zip(rows, (left, right)):
        assert [(message["role"], message["content"]) for message in row["messages"]] == [tuple(turn) for turn in shown]

    page.click(".column:last-child .answer:last-child .retry")  # of one column alone
    finished(page)
    assert (dialogue(page, 0), dialogue(page, 1)) == (left, right)
    page.click(".column:first-child .user .edit >> nth=1")
    page.fill(".editing textarea", "a cat")
    page.click("text=Only here")
    finished(page)
    assert dialogue(page, 0)[2] == ["user", "a cat"]
    assert dialogue(page, 1) == right
    page.click(".column:first-child .user .edit >> nth=0")
    page.fill(".editing textarea", "an eel")
    page.press(".editing textarea", "Enter")  # where both have the question, both are asked
    finished(page)
    assert dialogue(page, 0)[0] == dialogue(page, 1)[0] == ["user", "an eel"]
    assert len(dialogue(page, 0)) == len(dialogue(page, 1)) == 2


# Before a script


def test_html_is_text_whoever_writes_it(scripted: tuple[Script, str], opened: Any) -> None:
    page = opened(scripted[1])
    ask(page, HOSTILE)
    ask(page, "html")
    assert [turn[1] for turn in dialogue(page)][::3] == [HOSTILE, HOSTILE]
    page.reload()
    page.wait_for_selector(".answer")
    assert page.evaluate("document.querySelectorAll('.log img, .log b, .log script').length") == 0
    assert page.title() == "Ayni"


def test_requests_carry_system_message_sampling_and_the_dialogue(scripted: tuple[Script, str], opened: Any) -> None:
    script, address = scripted
    page = opened(address)
    page.click("#settings-toggle")
    page.fill("#system", "Be kind.")
    page.fill("#temperature", "0.25")
    page.fill("#seed", "7")
    page.click("#settings-toggle")
    ask(page, "Hello")
    ask(page, "Again")
    system = {"role": "system", "content": "Be kind."}
    said = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Grüße 🐈 from one"}]
    assert script.requests[0]["messages"] == [system, said[0]]
    assert script.requests[1]["messages"] == [system, *said, {"role": "user", "content": "Again"}]
    assert (script.requests[0]["temperature"], script.requests[0]["seed"]) == (0.25, 7)
    assert "max_tokens" not in script.requests[0]
    page.reload()  # settings stay
    page.click("#new")
    ask(page, "Hello")
    assert script.requests[-1]["messages"] == [system, said[0]]


def test_stop_ends_both_columns_and_hangs_up(scripted: tuple[Script, str], opened: Any) -> None:
    script, address = scripted
    page = opened(address)
    page.click("#compare")
    page.fill("#box", "endless")
    page.press("#box", "Enter")
    until(page, "document.querySelectorAll('.coming').length === 2")
    until(page, "[...document.querySelectorAll('.coming .said')].every(said => said.textContent.includes('and'))")
    page.click("#stop")
    finished(page)
    assert script.hung_up.wait(5)
    assert page.inner_text(".cut >> nth=1") == "stopped"
    assert {request["model"] for request in script.requests} == {"one", "two"}


def test_what_went_wrong_is_told_in_the_dialogue(scripted: tuple[Script, str], opened: Any) -> None:
    script, address = scripted
    page = opened(address)
    for said, told, advice, partial in (
        ("busy", "as many requests wait", "Wait a moment", False),
        ("long", "5000 tokens", "Edit a message or the settings", False),
        ("fail", "the server failed", "log", True),
        ("break", "broke off", "ayni serve", True),
    ):
        script.requests.clear()
        ask(page, said)
        note = page.inner_text(".note")
        assert told in note
        assert advice in note
        assert len(dialogue(page)) == 1 + partial
        page.click(".note .retry")
        finished(page)
        assert len(script.requests) == 2
        assert len(dialogue(page)) == 1 + partial
        ask(page, "Hello")
        assert page.query_selector(".note") is None
        roles = [message["role"] for message in script.requests[-1]["messages"]]
        assert roles == (["user", "assistant", "user"] if partial else ["user"])
        page.click("#new")


def test_a_key_is_asked_for_only_when_the_server_wants_one(scripted: tuple[Script, str], opened: Any) -> None:
    script, address = scripted
    page = opened(address)
    page.wait_for_selector("text=Ask one")
    assert not page.is_visible("#key-form")
    script.key = "secret"
    page.reload()
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    page.wait_for_selector("#key-form:not([hidden])")
    page.fill("#key", "secret")
    page.press("#key", "Enter")
    page.wait_for_selector("text=Ask one")
    assert not page.is_visible("#key-form")
    assert page.query_selector(".note") is None
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")


def test_a_server_that_is_gone_is_told(scripted: tuple[Script, str], opened: Any) -> None:
    page = opened(scripted[1])
    page.wait_for_selector("text=Ask one")
    page.context.set_offline(True)
    ask(page, "Hello")
    assert "does not answer" in page.inner_text(".note")
    page.context.set_offline(False)
    page.click(".note .retry")
    finished(page)
    assert dialogue(page)[1][1] == "Grüße 🐈 from one"


def test_the_keyboard_is_enough(scripted: tuple[Script, str], opened: Any) -> None:
    page = opened(scripted[1])
    page.wait_for_selector("text=Ask one")
    keys = page.keyboard
    keys.type("two")
    keys.press("Shift+Enter")
    keys.type("lines")
    keys.press("Enter")
    finished(page)
    assert dialogue(page)[0][1] == "two\nlines"
    keys.press("ArrowUp")
    keys.press("Control+a")
    keys.type("other")
    keys.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Edit"
    keys.press("/")
    keys.press("ArrowUp")
    keys.press("Control+a")
    keys.type("other")
    keys.press("Enter")
    finished(page)
    assert [turn[1] for turn in dialogue(page)] == ["other", "Grüße 🐈 from one"]
    keys.press("Control+Shift+Enter")
    finished(page)
    assert len(dialogue(page)) == 2
    keys.press("Control+Shift+2")
    assert page.locator(".column").count() == 2
    keys.press("Control+Shift+2")
    assert page.locator(".column").count() == 1
    keys.press("Control+,")
    assert page.evaluate("document.activeElement.id") == "system"
    keys.press("Control+,")
    keys.press("Escape")
    keys.press("?")
    assert page.is_visible("#help")
    keys.press("Escape")
    assert not page.is_visible("#help")
    keys.press("Control+Shift+O")
    assert dialogue(page) == []
    assert page.evaluate("document.activeElement.id") == "box"


def test_dark_follows_the_system_until_chosen(scripted: tuple[Script, str], opened: Any) -> None:
    page = opened(scripted[1], color_scheme="dark")

    def brightness() -> int:
        return page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")

    assert brightness() < 60
    page.emulate_media(color_scheme="light")
    assert brightness() > 200
    page.click("#theme")
    assert brightness() < 60
    page.reload()
    assert brightness() < 60


def test_a_narrow_screen_needs_no_sideways_scrolling(scripted: tuple[Script, str], opened: Any) -> None:
    page = opened(scripted[1], viewport={"width": 360, "height": 700}, reduced_motion="reduce")
    ask(page, "x" * 300)
    for button in ("#settings-toggle", "#compare"):
        page.click(button)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.getElementById('help-open').getBoundingClientRect().right") <= 360


def test_copy_puts_the_words_on_the_clipboard(scripted: tuple[Script, str], opened: Any) -> None:
    page = opened(scripted[1], permissions=["clipboard-read", "clipboard-write"])
    ask(page, "Hello")
    page.click(".answer .copy")
    assert page.evaluate("navigator.clipboard.readText()") == "Grüße 🐈 from one"
    page.click(".whole")
    assert page.evaluate("navigator.clipboard.readText()") == "You: Hello\n\none: Grüße 🐈 from one"


@pytest.mark.parametrize(
    "kept", ["x", "null", "[7]", '[{"model": "little", "turns": [{"role": "assistant", "content": "a"}]}]']
)
def test_storage_that_another_program_wrote_is_no_reason_to_fail(
    scripted: tuple[Script, str], opened: Any, kept: str
) -> None:
    page = opened(scripted[1])
    page.evaluate(
        "kept => { sessionStorage.setItem('ayni.dialogues', kept); localStorage.setItem('ayni.settings', 'dark'); }",
        kept,
    )
    page.reload()
    ask(page, "Hello")
    assert len(dialogue(page)) == 2
