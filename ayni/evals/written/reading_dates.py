"""What a free answer says of a date: a number of years or days, a year, a month, a day, yes or no. By rule, figures only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Kind = Literal["years", "days", "year", "month", "day", "yes"]
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip


def read(kind: Kind, answer: str, given: Sequence[int] = (), months: Sequence[str] = MONTHS) -> str | None:
    """The answer's value as text, or None where it says none, or two. `given`: numbers that the question itself names.

    years, days: the number before the word "years" or "days", else the first that is not given. year: the first number of
    three or four digits that is not given. month: the only month named. day: "18 June", or "18" without a month. yes: yes or no.
    """
    if kind == "yes":
        said = {word for word in re.findall(r"[a-z]+", answer.lower()) if word in ("yes", "no")}
        return said.pop() if len(said) == 1 else None
    named = [month for month in months if re.search(rf"\b{re.escape(month)}\b", answer, re.IGNORECASE)]
    if kind == "month":
        return named[0] if len(named) == 1 else None
    if kind in ("years", "days"):
        counted = re.findall(rf"(\d+)\s+(?:full\s+)?{kind[:-1]}", answer, re.IGNORECASE)
        if counted:
            return str(int(counted[0]))
    numbers = [int(number) for number in re.findall(r"\d+", answer.replace(",", ""))]
    new = [number for number in numbers if number not in given]
    if kind == "year":
        new = [number for number in new if 100 <= number <= 9999]
    if kind == "day":
        new = [number for number in new if 1 <= number <= 31]
        if len(named) > 1 or not new:
            return None
        return f"{new[0]} {named[0]}" if named else str(new[0])
    return str(new[0]) if new else None
