"""The language of `attrtrain search`, and what it means.

    furry AND NOT sleeping AND category = 'dog'
    (furry OR "metal / metallic" >= 0.8) and image != '000000000139.jpg'

    expression  = conjunction { OR conjunction }
    conjunction = negation { AND negation }
    negation    = NOT negation | "(" expression ")" | name [ operator value ]
    operator    = "=" | "!=" | "<>" | "<" | "<=" | ">" | ">="
    value       = a number | 'text', a quote in it doubled
    name        = a word (letters, digits, _ and -) | "anything", a double quote in it doubled

A name is an attribute's, or one of the columns object_id, image and category; where an attribute is called like a
column, the word is the column and the quoted name the attribute. An attribute alone means that its score reaches its
threshold.

Which objects are found is plain logic. They are ranked by a joint score: an attribute counts with its score p, AND
multiplies, NOT is 1 − p, OR is the maximum; `p >= x` counts as p, `p < x` as 1 − p, and whatever else is true or false
as 1 or 0. An attribute that no object of the training had is false, whatever its score. Maximum and complement are
union and complement of fuzzy sets and the product is their algebraic product (L. A. Zadeh, "Fuzzy sets", Information
and Control 8, 1965); for AND, that is the probability that all of them are present were they independent.

What a user typed never becomes SQL: it is parsed here, names are looked up among those of the file, and values are
bound parameters.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from attrtrain.errors import ConfigError
from attrtrain.inference.results import AttributeColumn

COLUMNS = {"object_id": int, "image": str, "category": str}
"""Columns that can be compared, with the type of their values."""
_LONGEST, _DEEPEST = 2000, 50  # characters, and levels of parentheses and NOT
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<operator><=|>=|!=|<>|=|<|>)
    | (?P<bracket>[()])
    | (?P<word>[^\W\d][\w-]*)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Sql:
    """A piece of SQL with the values of its parameters, in order."""

    text: str
    values: tuple[str | int | float, ...] = ()


@dataclass(frozen=True)
class Query:
    """What was asked for.

    Attributes:
        matches: a condition on a row.
        score: the joint score of a row, from 0 to 1.
        attributes: those that were named, each once, in that order.
    """

    matches: Sql
    score: Sql
    attributes: tuple[AttributeColumn, ...]


def parse(text: str, attributes: Sequence[AttributeColumn]) -> Query:
    """Parses an expression over the attributes of a file.

    Raises:
        ConfigError: the expression is not of the language, or names what is not there; with the names that come close.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"the expression has {len(text):,} characters; {_LONGEST:,} is the most")
    parser = _Parser(text, attributes)
    matches, score = parser.expression()
    parser.require_end()
    return Query(matches, score, tuple(dict.fromkeys(parser.named)))


def quoted(column: str) -> str:
    """A column of the file as an SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


_Pair = tuple[Sql, Sql]  # condition, score
_NEVER: _Pair = Sql("(false)"), Sql("0::DOUBLE")


class _Parser:
    def __init__(self, text: str, attributes: Sequence[AttributeColumn]) -> None:
        self._tokens = list(_tokens(text))
        self._place = 0
        self._depth = 0
        self._attributes = attributes
        self.named: list[AttributeColumn] = []

    def expression(self) -> _Pair:
        parts = [self._conjunction()]
        while self._take_keyword("OR"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else (_joined(parts, 0, " OR "), _joined(parts, 1, ", ", "greatest"))

    def _conjunction(self) -> _Pair:
        parts = [self._negation()]
        while self._take_keyword("AND"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else (_joined(parts, 0, " AND "), _joined(parts, 1, " * "))

    def _negation(self) -> _Pair:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ConfigError(f"the expression is nested more than {_DEEPEST} deep")
        if self._take_keyword("NOT"):
            matches, score = self._negation()
            pair = Sql(f"(NOT {matches.text})", matches.values), Sql(f"(1 - {score.text})", score.values)
        elif self._peek() == ("bracket", "("):
            self._place += 1
            pair = self.expression()
            if self._peek() != ("bracket", ")"):
                self._fail("a closing parenthesis")
            self._place += 1
        else:
            pair = self._term()
        self._depth -= 1
        return pair

    def _term(self) -> _Pair:
        kind, name = self._peek()
        if kind not in ("word", "quoted") or self._is_keyword():
            self._fail("an attribute, a column, NOT or a parenthesis")
        self._place += 1
        target = self._find(name, is_quoted=kind == "quoted")
        operator = "="
        if is_comparison := self._peek()[0] == "operator":
            operator = self._peek()[1]
            self._place += 1
        if isinstance(target, AttributeColumn):
            self.named.append(target)
            return self._attribute(target, operator if is_comparison else None)
        if not is_comparison:
            self._fail(f"a comparison such as {target} = ... ({target} is no attribute)")
        value = self._value(COLUMNS[target], target)
        return _crisp(Sql(f"({quoted(target)} {operator} ?)", (value,)))

    def _attribute(self, target: AttributeColumn, operator: str | None) -> _Pair:
        score = f"CAST({quoted(target.column)} AS DOUBLE)"
        if operator is None:
            if not target.is_learnt:
                return _NEVER
            return Sql(f"({score} >= ?)", (target.threshold,)), Sql(score)
        matches = Sql(f"({score} {operator} ?)", (self._value(float, target.name),))
        if operator in (">", ">="):
            return matches, Sql(score)
        return (matches, Sql(f"(1 - {score})")) if operator in ("<", "<=") else _crisp(matches)

    def _value(self, kind: type, name: str) -> str | int | float:
        found, text = self._peek()
        if kind is str and found == "text":
            value: str | int | float = text
        elif kind is int and found == "number" and re.fullmatch(r"[+-]?\d{1,18}", text):
            value = int(text)
        elif kind is float and found == "number":
            value = float(text)
        else:
            words = {str: "a text in single quotes", int: "a whole number", float: "a number"}
            self._fail(f"{words[kind]} to compare {name} with")
        self._place += 1
        return value

    def _find(self, name: str, *, is_quoted: bool) -> AttributeColumn | str:
        if name in COLUMNS and not is_quoted:
            return name
        for same in (str.__str__, str.casefold):
            found = [attribute for attribute in self._attributes if same(attribute.name) == same(name)]
            if len(found) == 1:
                return found[0]
        if name in COLUMNS:
            return name
        names = [*(attribute.name for attribute in self._attributes), *COLUMNS]
        close = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
        holding = [other for other in names if name.casefold() in other.casefold() and other not in close]
        hint = (
            f"did you mean {', '.join(map(_shown, [*close, *holding][:5]))}?"
            if close or holding
            else "none comes close"
        )
        raise ConfigError(f"no attribute or column {name!r} in this file; {hint}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def _is_keyword(self) -> bool:
        kind, text = self._peek()
        return kind == "word" and text.upper() in ("AND", "OR", "NOT")

    def _take_keyword(self, word: str) -> bool:
        kind, text = self._peek()
        taken = kind == "word" and text.upper() == word
        self._place += taken
        return taken

    def require_end(self) -> None:
        if self._peek()[0] != "end":
            self._fail("AND, OR or the end (a name with spaces goes in double quotes)")

    def _fail(self, expected: str) -> NoReturn:
        kind, text = self._peek()
        found = "the expression ends" if kind == "end" else f"there is {text!r}"
        raise ConfigError(f"the expression: expected {expected}, but {found}")


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text without its quotes) of each token."""
    tokens, place = [], 0
    while text[place:].strip():
        if not (match := _TOKEN.match(text, place)):
            rest = text[place:].strip()
            foreign = f"{rest[:20]!r} is no part of the language (a name with such signs goes in double quotes)"
            why = "a quote that nothing closes" if rest[0] in "'\"" else foreign
            raise ConfigError(f"the expression, at character {len(text) - len(text[place:].lstrip()) + 1}: {why}")
        kind, found = str(match.lastgroup), match[str(match.lastgroup)]
        if kind in ("text", "quoted"):
            found = found[1:-1].replace(found[0] * 2, found[0])
        tokens.append((kind, found))
        place = match.end()
    return tokens


def _joined(parts: Sequence[_Pair], which: int, by: str, function: str = "") -> Sql:
    pieces = [pair[which] for pair in parts]
    return Sql(
        f"{function}({by.join(piece.text for piece in pieces)})",
        tuple(value for piece in pieces for value in piece.values),
    )


def _crisp(matches: Sql) -> _Pair:
    return matches, Sql(f"CAST({matches.text} AS DOUBLE)", matches.values)


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[^\W\d][\w-]*", name) else quoted(name)
