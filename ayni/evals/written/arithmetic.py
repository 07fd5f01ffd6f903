"""A calculator for models: numbers, + - * / // % **, parentheses, and nothing else. Never `eval`.

The expression is parsed by Python's own parser and walked; every node that is not arithmetic is refused, and so is whatever would
grow out of bounds.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

LONGEST = 200  # characters of an expression
LARGEST = 1e15  # of any value on the way
STEEPEST = 64  # exponent

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_SIGNS = str.maketrans({"×": "*", "x": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})


def calculate(expression: str) -> str | None:
    """The result as a person would write it, or None where the expression is no arithmetic, or has no bounded value.

    Signs of school (×, ÷, ^, and x between numbers), currency marks and commas of thousands are understood.
    """
    if len(expression) > LONGEST:
        return None
    plain = expression.strip().rstrip("=").replace(",", "").replace("$", "").translate(_SIGNS)
    try:
        value = _value(ast.parse(plain.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    if abs(value) > LARGEST or math.isnan(value):
        return None
    return str(int(value)) if value == int(value) else f"{value:.10g}"


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _value(left), _value(right)
            # The size of a power is known before it is computed: log10 |a^b| = b log10 |a|.
            if isinstance(op, ast.Pow) and (
                abs(b) > STEEPEST
                or (a != 0 and b * math.log10(abs(a)) > math.log10(LARGEST))
                or (a < 0 and b != int(b))
            ):
                raise ValueError("out of bounds")
            return _bounded(_BINARY[type(op)](a, b))
        case _:
            raise ValueError("not arithmetic")


def _bounded(value: float) -> float:
    if not abs(value) <= LARGEST:
        raise ValueError("out of bounds")
    return value
