"""Words of the text form, and a cursor over them that reports line and column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn, TypeVar

from tracegraph.errors import ParseError

_T = TypeVar("_T")

_TOKEN: Final = re.compile(
    r"""(?:\A|\n)[ \t]*\#[^\n]*                             # a comment on a line of its own
    | \n[ \t]* | [ \t\r]+
    | (?P<comment>\#[^\n]*)
    | (?P<value>%[A-Za-z0-9_.]+)
    | (?P<type>[a-z]+[0-9]+\[[^\]\s]*\])
    | (?P<bytes>base64"[A-Za-z0-9+/=]*")
    | (?P<dim>`[^`\n]*`)
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<number>-?(?:inf\b|nan\b|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?))
    | (?P<name>[A-Za-z_][A-Za-z0-9_.]*(?:::[A-Za-z0-9_]+)?)
    | (?P<mark>->|[@(){}\[\],;:=<>])
    | (?P<bad>.)
    """,
    re.VERBOSE,
)
_MAX_DEPTH: Final = 50


class Token(NamedTuple):
    """One word of the text; `kind` is a group of the pattern, or "end"."""

    kind: str
    text: str
    start: int


def _tokens(text: str) -> list[Token]:
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind is not None:
            found.append(Token(kind, match.group(), match.start()))
    found.append(Token("end", "", len(text)))
    return found


class Cursor:
    """A place among the words of a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.place = 0
        self.depth = 0

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        """Raise a ParseError at a token (the next one by default)."""
        token = self.tokens[self.place] if token is None else token
        line = self.text.count("\n", 0, token.start) + 1
        column = token.start - self.text.rfind("\n", 0, token.start)
        raise ParseError(f"line {line}, column {column}: {message}")

    def refuse(self, expected: str) -> NoReturn:
        """Say what was expected in place of the next token."""
        found = self.tokens[self.place].text
        self.fail(f"expected {expected}, found {found!r}" if found else
                  f"expected {expected}, found the end of the text")  # fmt: skip

    def expect(self, kind: str, what: str = "") -> Token:
        """Take the next token, which must be of a kind."""
        token = self.tokens[self.place]
        if token.kind != kind:
            self.refuse(what or f"a {kind}")
        self.place += 1
        return token

    def mark(self, *marks: str) -> str:
        """Take one of some marks."""
        token = self.tokens[self.place]
        if token.text not in marks or token.kind != "mark":
            self.refuse(" or ".join(map(repr, marks)))
        self.place += 1
        return token.text

    def word(self, text: str) -> None:
        """Take a fixed word."""
        if not self.take(text):
            self.refuse(repr(text))

    def at(self, text: str) -> bool:
        """Whether the next token is this mark or word."""
        token = self.tokens[self.place]
        return token.text == text and token.kind in ("mark", "name")

    def take(self, text: str) -> bool:
        """Take the next token if it is this mark or word."""
        found = self.at(text)
        self.place += found
        return found

    def several(self, item: Callable[[], _T], close: str) -> list[_T]:
        """Items between commas up to a closing mark, which is taken."""
        items: list[_T] = []
        while not self.at(close):
            items.append(item())
            if not self.take(","):
                break
        self.mark(close)
        return items

    def name(self, what: str) -> str:
        """A plain or quoted name."""
        if self.tokens[self.place].kind == "string":
            return self.string(what)
        return self.expect("name", what).text

    def string(self, what: str) -> str:
        """A quoted string."""
        token = self.expect("string", f"{what} in quotes")
        try:
            return str(json.loads(token.text))
        except ValueError:
            self.fail(f"{token.text} is no JSON string", token)

    def nested(self, read: Callable[[], _T]) -> _T:
        """Read something that may hold itself, to a bounded depth."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"nested deeper than {_MAX_DEPTH}")
        try:
            return read()
        finally:
            self.depth -= 1
