"""Language of small expressions, such as `params.decoder / params.encoder < 4`.

It has numbers, text, `true`, `false`, `null`, lists, names with dots, `+ - * / **`, comparisons in
chains, `in`, `and`, `or`, `not`, and the functions of `FUNCTIONS`, with Python's precedence. An
expression is read once into closures. There is no `eval`, and its length, nesting and numbers are
bounded, so no expression can hang.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestration.yaml.source import did_you_mean, listed, show

Value = Any
"""Number, text, truth value, None, or a tuple of those."""
Lookup = Callable[[str], Value]
"""Function from a name to its value."""

# Far more than a formula needs; every token costs time in each cell.
MAX_LENGTH = 2000
MAX_TOKENS = 300
# The parser recurses, up to five frames per level; Python's limit is 1000.
MAX_DEPTH = 40
MAX_BITS = 1023
"""Bits of the largest whole number: a float still holds it."""

# Longer signs come first: `**` before `*`, `<=` before `<`.
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<symbol>\*\*|<=|>=|==|!=|[-+*/<>()\[\],])"
    r"|(?P<end>$))"
)
# Signs of other languages, each with the spelling here.
_INSTEAD = {
    "=": "write == to compare",
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not` or !=",
    "^": "write ** for powers",
    "%": "there is no remainder",
    "'": "the quote is not closed",
    '"': "the quote is not closed",
}
_CONSTANTS = {"true": True, "false": False, "null": None}
_OPERATORS = ("and", "or", "not", "in")
WORDS = (*_OPERATORS, *_CONSTANTS)
"""Words that cannot be names."""
# Python's precedence: the larger number binds more tightly.
_BINDING = {
    "or": 1,
    "and": 2,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!=", "in", "not"), 4),
    **dict.fromkeys("+-", 5),
    **dict.fromkeys("*/", 6),
    "**": 8,
}
# `not` binds between `and` and comparisons, a sign between `*` and `**`: -2 ** 2 is -4.
_NOT, _COMPARE, _SIGN = 3, 4, 7


class ExpressionError(ValueError):
    """Error in an expression, with the position of its character, counted from 0."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(text)
        self.text = text
        self.position = position


@dataclass(frozen=True)
class TextComparison:
    """Name compared with a text, to be checked against the values that the name can have."""

    name: str
    text: str
    position: int


@dataclass(frozen=True)
class Expression:
    """Expression, parsed and ready to evaluate.

    Attributes:
        names: name -> position of its first use.
        comparisons: comparisons of names with texts, by `==`, `!=` or `in`.
    """

    text: str
    names: dict[str, int]
    comparisons: tuple[TextComparison, ...]
    run: Callable[[Lookup], Value]

    def value(self, lookup: Lookup) -> Value:
        """Evaluate the expression.

        Raises:
            ExpressionError: operands of wrong kinds, a division by zero, or a number too large.
        """
        return self.run(lookup)


def read_expression(text: str) -> Expression:
    """Parse an expression.

    Raises:
        ExpressionError: the text is not a valid expression.
    """
    return _Parser(text).read()


def pointed(text: str, position: int) -> str:
    """Show the expression with a caret below a character, as lines to append to a message."""
    # An expression may be longer than a terminal's line, so a window of 100 characters is shown.
    start = max(position - 60, 0)
    line = text[start : start + 100].replace("\n", " ")
    return f"\n      {line}\n      {' ' * (position - start)}^"


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


@dataclass(frozen=True)
class _Piece:
    """Parsed piece: how to compute it, and its name or texts if it is nothing more."""

    run: Callable[[Lookup], Value]
    position: int
    name: str | None = None
    texts: tuple[tuple[str, int], ...] = ()


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH:,} characters", MAX_LENGTH)
    tokens: list[_Token] = []
    at = 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, at)
        # The pattern skips leading spaces; point at the character behind them.
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            hint = _INSTEAD.get(text[at], "")
            raise ExpressionError(f"unexpected {show(text[at])}" + (hint and f"; {hint}"), at)
        kind = str(match.lastgroup)
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
        if len(tokens) > MAX_TOKENS:
            raise ExpressionError(f"more than {MAX_TOKENS} words and signs", match.start(kind))
    return tokens


class _Parser:
    """Parser by precedence climbing: an operator takes all that binds tighter on its right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.index = 0
        self.depth = 0
        self.names: dict[str, int] = {}
        self.comparisons: list[TextComparison] = []

    def read(self) -> Expression:
        part = self._part(0)
        if self._next.kind != "end":
            token = self._next
            raise ExpressionError(
                f"unexpected {show(token.text)}; an operator belongs here", token.position
            )
        return Expression(self.text, self.names, tuple(self.comparisons), part.run)

    @property
    def _next(self) -> _Token:
        return self.tokens[self.index]

    def _take(self) -> _Token:
        self.index += 1
        return self.tokens[self.index - 1]

    def _expect(self, symbol: str, opened: _Token) -> None:
        token = self._take()
        if token.text != symbol or token.kind != "symbol":
            what = show(token.text) if token.text else "the end"
            text = f"got {what}; must be {symbol!r}, for the {opened.text!r} opened before"
            raise ExpressionError(text, token.position)

    def _part(self, binding: int) -> _Piece:
        """Parse everything that binds more tightly than `binding`."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"nested more than {MAX_DEPTH} levels deep", self._next.position)
        part = self._prefix()
        # Strictly more: operators of equal rank then group to the left, as 8 / 4 / 2.
        while (power := _BINDING.get(self._operator(), 0)) > binding:
            part = self._comparison(part) if power == _COMPARE else self._infix(part, power)
        # Not in a `finally`: after an error the parser is not used again.
        self.depth -= 1
        return part

    def _operator(self) -> str:
        token = self._next
        return token.text if token.kind in ("symbol", "name") else ""

    def _prefix(self) -> _Piece:
        token = self._take()
        if token.kind == "number":
            # Read once: the closure runs in every cell.
            number = _number(token)
            return _Piece(lambda _: number, token.position)
        if token.kind == "text":
            # Without the quotes; there are no escapes.
            text = token.text[1:-1]
            return _Piece(lambda _: text, token.position, texts=((text, token.position),))
        if token.text == "not":
            return _negated(self._part(_NOT), token)
        # An operator's word cannot be a name, or `a and and b` would ask for the value of `and`.
        if token.kind == "name" and token.text not in _OPERATORS:
            return self._word(token)
        if token.text == "(":
            part = self._part(0)
            self._expect(")", token)
            return part
        if token.text == "[":
            return self._list(token)
        if token.text in ("-", "+"):
            return _signed(self._part(_SIGN), token)
        what = f"unexpected {show(token.text)}" if token.text else "ends too early"
        raise ExpressionError(f"{what}; a value or a name belongs here", token.position)

    def _word(self, token: _Token) -> _Piece:
        name = token.text
        if name in _CONSTANTS:
            constant = _CONSTANTS[name]
            return _Piece(lambda _: constant, token.position)
        if self._next.text == "(" and self._next.kind == "symbol":
            return self._call(token)
        # The first use: a message about an unknown name points there.
        self.names.setdefault(name, token.position)
        return _Piece(lambda lookup: lookup(name), token.position, name)

    def _call(self, token: _Token) -> _Piece:
        function = FUNCTIONS.get(token.text)
        if function is None:
            text = f"unknown function; functions: {listed(FUNCTIONS)}"
            raise ExpressionError(text + did_you_mean(token.text, FUNCTIONS), token.position)
        parts = self._items(")", self._take())
        several = token.text in _OF_SEVERAL
        if len(parts) < 2 if several else len(parts) != 1:
            takes = "at least 2 numbers" if several else "one number"
            text = f"{token.text} takes {takes}, got {len(parts)}"
            raise ExpressionError(text, token.position)
        where, what = token.position, f"{token.text}(...)"

        def run(lookup: Lookup) -> Value:
            numbers = [_as_number(part.run(lookup), token.text, part.position) for part in parts]
            return _computed(function, numbers, what, where)

        return _Piece(run, where)

    def _list(self, token: _Token) -> _Piece:
        parts = self._items("]", token)
        texts = tuple(text for part in parts for text in part.texts)
        return _Piece(
            lambda lookup: tuple(part.run(lookup) for part in parts), token.position, texts=texts
        )

    def _items(self, closing: str, opened: _Token) -> list[_Piece]:
        parts: list[_Piece] = []
        while self._next.text != closing:
            # Inside brackets any operator may stand.
            parts.append(self._part(0))
            if self._next.text != ",":
                break
            self._take()
        self._expect(closing, opened)
        return parts

    def _infix(self, left: _Piece, power: int) -> _Piece:
        token = self._take()
        # `**` takes a sign and another power to its right: 2 ** -1, 2 ** 3 ** 2.
        right = self._part(_SIGN - 1 if token.text == "**" else power)
        if token.text in ("and", "or"):
            return _joined(left, right, token)
        compute, name, where = _ARITHMETIC[token.text], token.text, token.position

        def run(lookup: Lookup) -> Value:
            a = _as_number(left.run(lookup), name, left.position)
            b = _as_number(right.run(lookup), name, right.position)
            return _computed(compute, (a, b), f"{show(a)} {name} {show(b)}", where)

        return _Piece(run, left.position)

    def _comparison(self, first: _Piece) -> _Piece:
        """Parse `a < b <= c`: each neighbouring pair must hold."""
        parts, tests = [first], []
        while _BINDING.get(self._operator()) == _COMPARE:
            token = self._take()
            name = token.text
            # `not` after a value can only begin `not in`.
            if name == "not":
                name = "not in"
                if self._take().text != "in":
                    raise ExpressionError("`not` here must be followed by `in`", token.position)
            tests.append((name, token.position))
            parts.append(self._part(_COMPARE))
            if name in ("==", "!=", "in", "not in"):
                self._note(parts[-2], parts[-1])

        def run(lookup: Lookup) -> bool:
            # Each side is computed once, and none after the first pair that fails.
            left = parts[0].run(lookup)
            for (name, where), part in zip(tests, parts[1:], strict=True):
                right = part.run(lookup)
                if not _compare(name, left, right, where):
                    return False
                left = right
            return True

        return _Piece(run, first.position)

    def _note(self, left: _Piece, right: _Piece) -> None:
        # The name may stand on either side: `'S' == size`.
        for one, other in ((left, right), (right, left)):
            if one.name is not None:
                self.comparisons += [TextComparison(one.name, *text) for text in other.texts]


def _number(token: _Token) -> int | float:
    text = token.text.replace("_", "")
    # Digits alone stay an `int`: exact up to `MAX_BITS`, and accepted where a count is.
    value = int(text) if text.isdigit() else float(text)
    return _finite(value, token.text, token.position)


def _negated(part: _Piece, token: _Token) -> _Piece:
    return _Piece(
        lambda lookup: not _as_truth(part.run(lookup), "not", part.position), token.position
    )


def _signed(part: _Piece, token: _Token) -> _Piece:
    sign = -1 if token.text == "-" else 1
    return _Piece(
        lambda lookup: sign * _as_number(part.run(lookup), token.text, part.position),
        token.position,
    )


def _joined(left: _Piece, right: _Piece, token: _Token) -> _Piece:
    # The word that decides by its first operand: `or` by true, `and` by false.
    word, decided = token.text, token.text == "or"

    def run(lookup: Lookup) -> bool:
        if _as_truth(left.run(lookup), word, left.position) is decided:
            return decided
        return _as_truth(right.run(lookup), word, right.position)

    return _Piece(run, left.position)


def _as_number(value: Value, what: str, position: int) -> int | float:
    # A bool is an `int` in Python; `true + 1` is a mistake here.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError(f"{what} takes numbers, got {show(value)}", position)
    return value


def _as_truth(value: Value, what: str, position: int) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"`{what}` takes true or false, got {show(value)}", position)
    return value


def _computed(
    compute: Callable[..., int | float],
    numbers: tuple[int | float, ...] | list[int | float],
    what: str,
    position: int,
) -> int | float:
    try:
        value = compute(*numbers)
    except ZeroDivisionError:
        raise ExpressionError(f"{what} divides by zero", position) from None
    except OverflowError:
        raise ExpressionError(f"{what} is too large", position) from None
    except ValueError:
        given = listed(map(show, numbers))
        raise ExpressionError(f"{what} of {given} is not a real number", position) from None
    return _finite(value, what, position)


def _finite(value: int | float, what: str, position: int) -> int | float:
    # An `int` has no infinity, so its size is bounded by bits.
    large = value.bit_length() > MAX_BITS if isinstance(value, int) else not math.isfinite(value)
    if large:
        raise ExpressionError(f"{what} is too large", position)
    return value


def _power(base: int | float, exponent: int | float) -> int | float:
    """Compute `base ** exponent`, but no number of more than `2 * MAX_BITS` bits."""
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        # Checked before the power is taken: `9 ** 9 ** 9` alone would fill the memory.
        if abs(base) > 1 and exponent * (abs(base).bit_length() - 1) > MAX_BITS:
            raise OverflowError
        return int(base**exponent)
    result = float(base) ** exponent
    # A negative base to a fraction is complex in Python.
    if isinstance(result, complex):
        raise ValueError
    return float(result)


_OF_SEVERAL = ("min", "max")
FUNCTIONS: dict[str, Callable[..., int | float]] = {
    function.__name__: function
    for function in (
        *(min, max, abs, round),
        *(math.log, math.log2, math.sqrt, math.floor, math.ceil),
    )
}
_ARITHMETIC: dict[str, Callable[..., int | float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": _power,
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _compare(name: str, left: Value, right: Value, position: int) -> bool:
    if name in _ORDER:
        a, b = (_as_number(side, name, position) for side in (left, right))
        return _ORDER[name](a, b)
    if name in ("in", "not in"):
        if not isinstance(right, tuple):
            text = f"`in` takes a list on its right, such as ['S', 'B']; got {show(right)}"
            raise ExpressionError(text, position)
        return any(_equal(left, item, position) for item in right) is (name == "in")
    return _equal(left, right, position) is (name == "==")


def _equal(left: Value, right: Value, position: int) -> bool:
    # `null` may be compared with anything, since an optional key may hold either.
    if None not in (left, right) and _kind(left) != _kind(right):
        text = f"compares {_kind(left)} with {_kind(right)}: {show(left)} and {show(right)}"
        raise ExpressionError(text, position)
    return bool(left == right)


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    return "a text" if isinstance(value, str) else "a list"
