from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ayni.evals.answering import Continue
from ayni.evals.written import calculator
from ayni.evals.written.calculator import call_at_end, final_number, work
from ayni.text.sources import write_jsonl


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"id": f"asdiv-{i}", "passage": f"Ann has {i} plums.", "question": "She gets 4 more. How many?", "golds": [str(i + 4)]}
            for i in range(1, 13)]  # fmt: skip
    write_jsonl(tmp_path / "asdiv.jsonl", rows)
    return tmp_path


def plums(prompt: str) -> int:
    return int(prompt.rsplit("Ann has ", 1)[1].split(maxsplit=1)[0])


def solver(prompt: str) -> str:
    """Calls the tool and repeats its result; without it guesses 7 (right where there are three plums)."""
    if "</calculator> =" in prompt.rsplit("Ann has", 1)[1]:
        return f" plums. The answer is {prompt.rsplit('=', 1)[1].strip()}.\nProblem: another"
    if "You can use a calculator" in prompt:
        return f" She has <calculator>{plums(prompt)} + 4</calculator> = 999"
    return " The answer is 7."


def test_the_result_is_put_behind_the_call_and_the_model_goes_on(scripted, settings, data: Path) -> None:
    writer = scripted(solver)
    [part] = calculator.ask(writer, settings("tools"), data, data)
    assert part.figure["value"] == 1.0
    assert part.figures["without"]["value"] == pytest.approx(1 / 12)
    assert part.items[0].answers[0] == " She has <calculator>1 + 4</calculator> = 5 plums. The answer is 5."
    assert part.label == "ASDiv: 12 of 2,305 rows, with a calculator"
    assert (part.figures["calls a problem"]["value"], part.figures["valid calls"]["value"]) == (1.0, 1.0)
    d_N = np.array([item.points["with"] - item.points["without"] for item in part.items])
    found = part.figures["with - without"]
    assert found["value"] == pytest.approx(d_N.mean())
    draws = np.random.default_rng(3).choice(d_N, (4000, len(d_N))).mean(1)
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.06)
    assert all(each.temperature == 0 for each in writer.asked)


def test_chat_asks_the_problem_alone(scripted, settings, data: Path) -> None:
    [part] = calculator.ask(scripted(solver), settings("tools", template="chat", limit=2), data, data)
    assert part.shots == 0
    assert part.items[0].prompt.startswith("[system] Solve the problem step by step. You can use a calculator")
    assert "baker" not in part.items[0].prompt
    assert part.figure["value"] == 1.0


def test_a_json_call_is_a_call_and_an_invalid_one_is_told() -> None:
    said = iter(
        ['{"name": "calculator", "arguments": {"expression": "6 * 7"}}', "so <calculator>six</calculator>", "it is 42"]
    )

    class Writer:
        def continuations(self, asked: list[Continue]) -> list[str]:
            [each] = asked
            text = next(said)
            for stop in each.until:
                text = text.split(stop)[0]
            return [text]

    [attempt] = work(Writer(), [Continue("Q")], 4)  # type: ignore[arg-type]
    assert attempt.calls == [("6 * 7", "42"), ("six", None)]
    assert attempt.text.startswith('{"name": "calculator", "arguments": {"expression": "6 * 7"}}\nResult: 42so ')
    assert attempt.text.endswith("</calculator> = errorit is 42")


def test_a_model_that_never_stops_calling_is_stopped(scripted) -> None:
    writer = scripted(lambda _: "<calculator>1 + 1</calculator> and")
    [attempt] = work(writer, [Continue("Q")], 3)
    assert len(attempt.calls) == 3
    assert attempt.ended
    assert len(writer.asked) == 4


@pytest.mark.parametrize(
    ("said", "expression"),
    [("a <calculator> 2 + 2 ", "2 + 2"), ("done", None), ("<calculator>1 <calculator>2", "2"),
     ('{"name": "calculator", "parameters": {"expression": "3-1"', "3-1"),
     ('{"name": "search", "arguments": {"expression": "3-1"', None)],
)  # fmt: skip
def test_what_is_a_call(said: str, expression: str | None) -> None:
    """The text is cut at the closing mark before it gets here."""
    assert call_at_end(said) == expression


def test_the_final_number() -> None:
    assert final_number("3 and 4. The answer is 1,250 plums. The answer is 3.") == 1250
    assert final_number("She has 5.\n<calculator>7 + 7</calculator>") == 5
    assert final_number("none") is None
