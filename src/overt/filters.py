"""MLflow's grammar for filtering and ordering runs, read once into values, and applied to runs of any store.

What MLflow refuses is refused here, with the piece that is wrong and what to write instead; what both take means the
same (``tests/properties/test_filters.py`` asks MLflow). Known differences: an AND too many or
none between two conditions is refused here; more spaces are taken, and an order by a name with quotes in it; an
infinite metric is infinite here, where MLflow holds the largest finite number; ILIKE folds the case of all scripts,
where sqlite folds that of English letters only.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from overt.errors import ConfigurationError
from overt.records import RunSummary, StoredDataset

Entity = Literal["metric", "param", "tag", "attribute", "dataset"]
Value = str | float | tuple[str, ...] | None
DatasetsOf = Callable[[RunSummary], Sequence[StoredDataset]]

_ENTITIES: dict[str, Entity] = {
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
}
_PLURALS: dict[Entity, str] = {
    "metric": "metrics",
    "param": "params",
    "tag": "tags",
    "attribute": "attributes",
    "dataset": "datasets",
}
TAGS_OF_EVERY_RUN = {"mlflow.runName": "name", "overt.key": "key"}
"""Tags that MLflow's runs have beside the fields of the same meaning, which alone other stores hold."""
_TIMES = ("start_time", "end_time")
_ATTRIBUTES = ("run_id", "run_name", "status", "user_id", "artifact_uri", *_TIMES)
_DATASET_KEYS = ("name", "digest", "context")
_ALIASES = {"created": "start_time", "Created": "start_time"}
_FILTER_ALIASES = _ALIASES | dict.fromkeys(("run name", "Run name", "Run Name"), "run_name")

_ON_NUMBERS = ("=", "!=", ">", ">=", "<", "<=")
_ON_TEXTS = ("=", "!=", "LIKE", "ILIKE")
_ON_LISTS = ("IN", "NOT IN")
_ON_PRESENCE = ("IS NULL", "IS NOT NULL")

_SPACE = re.compile(r"\s*")
_BACKTICKED, _DOUBLE, _SINGLE = r"`(?:``|[^`])*`", r'"(?:""|\\"|[^"])*"', r"'(?:''|\\'|[^'])*'"
_IDENTIFIER = re.compile(rf"(?:(`\w+`|\w+)\.)?({_BACKTICKED}|{_DOUBLE}|{_SINGLE}|\w(?:[\w.]*\w)?)(?=[\s=<>!~,;&|]|$)")
_COMPARATOR = re.compile(
    r"!=|>=|<=|=(?!=)|>|<(?!>)|(?:NOT\s+IN|IN|IS\s+NOT\s+NULL|IS\s+NULL|LIKE|ILIKE)\b", re.IGNORECASE
)
_NUMBER = re.compile(r"-?(?:(?:\d+(?:\.\d+)?|\.\d+)[eE]-?\d+|\d+\.\d*|\.\d+|\d+)(?![\w.])", re.ASCII)
_DATE = re.compile(r"['\"]?\d{4}-\d\d")
_TEXT = re.compile(rf"{_SINGLE}|{_DOUBLE}")
_LIST = re.compile(rf"\((?:{_SINGLE}|{_DOUBLE}|[^()'\"])*\)")
_AND = re.compile(r"AND\b", re.IGNORECASE)
_DIRECTION = re.compile(r"(ASC|DESC)\b", re.IGNORECASE)
_NAME_IN_NEED_OF_BACKTICKS = re.compile(r"(\w+)\.([^\s=<>!'\"`]+)")
_SHOWN = 40

_REMEDIES = {
    "OR": "MLflow's grammar has no OR: ask twice, once for each side",
    "||": "MLflow's grammar has no OR: ask twice, once for each side",
    "&&": "write AND",
    ",": "write AND",
    ";": "leave it away: a filter is one expression",
    "(": "MLflow's grammar has no brackets around conditions: join them with AND",
    ")": "MLflow's grammar has no brackets around conditions: join them with AND",
    "NOT": "MLflow's grammar has no NOT in front of a condition: turn its comparator round, as in !=",
    "AND": "write each AND once, between two conditions",
    "==": "write =",
    "<>": "write !=",
    "BETWEEN": "write metrics.x >= 0.1 AND metrics.x <= 0.9",
    "NOT LIKE": "MLflow's grammar has no NOT LIKE: use !=, or drop those rows afterwards",
    "RLIKE": "use LIKE, where % stands for any text and _ for one character",
    "~": "use LIKE, where % stands for any text and _ for one character",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. Of what a run does not have, only ``IS NULL`` is true.

    Attributes
    ----------
    entity : {"metric", "param", "tag", "attribute", "dataset"}
        What is compared.
    key : str
        Its name, as it was recorded; of an attribute its plain name, such as ``start_time`` for ``created``.
    comparator : str
        One of ``= != < <= > >= LIKE ILIKE IN``, ``NOT IN``, ``IS NULL``, ``IS NOT NULL``.
    value : str, float, tuple of str, or None
        What it is compared with: a number for metrics and times, texts for IN, None for IS NULL.
    """

    entity: Entity
    key: str
    comparator: str
    value: Value


@dataclass(frozen=True, slots=True)
class Order:
    """One key to sort by; NaN comes after all numbers, and runs without a value after that, in either direction."""

    entity: Entity
    key: str
    is_ascending: bool = True


# -- text to values ----------------------------------------------------------------------------------------------------


def parse_filter(text: str | None) -> tuple[Condition, ...]:
    """Read a filter such as ``metrics.f1_score > 0.9 AND params.model_type = 'SVC'``; none for None or an empty one.

    Raises
    ------
    ConfigurationError
        When it is no such filter; the message shows the piece that is wrong, and what to write.
    """
    if text is None:
        return ()
    if not isinstance(text, str):
        raise ConfigurationError(f"`where` must be a text such as {_EXAMPLE!r} (got {type(text).__name__}).")
    reader = _Reader(text, "filter")
    conditions: list[Condition] = []
    while not reader.is_at_end():
        if conditions and not reader.take(_AND):
            raise reader.refusal("AND, or the end", _known(reader.rest()) or _remedy_for_rest(reader))
        conditions.append(_condition(reader))
    return tuple(conditions)


def parse_order(order_by: str | Sequence[str] | None) -> tuple[Order, ...]:
    """Read one key to sort by, such as ``metrics.f1_score DESC``, or several of them, the first of most weight.

    Raises
    ------
    ConfigurationError
        When one is no such key, or is given twice.
    """
    texts = (order_by,) if isinstance(order_by, str) else () if order_by is None else order_by
    if not isinstance(texts, Iterable):
        raise _no_order(texts)
    orders = tuple(map(_order, texts))
    keys = [(order.entity, order.key) for order in orders]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigurationError(f"order_by names {key[1]!r} twice: once is enough.")
    return orders


_EXAMPLE = "metrics.f1_score > 0.9 AND params.model_type = 'SVC'"


class _Reader:
    """A text, how far it has been read, and the words for what is wrong with the rest."""

    def __init__(self, text: str, what: str) -> None:
        self._text = text
        self._what = what
        self._at = 0

    def is_at_end(self) -> bool:
        self.take(_SPACE)
        return self._at == len(self._text)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The match that stands next, behind it from now on; None, and nothing read, if something else does."""
        if pattern is not _SPACE:
            self.take(_SPACE)
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def is_behind_a_quote(self) -> bool:
        """Whether a quote ended right before what stands next."""
        return self._text[self._at - 1 : self._at] in ("'", '"')

    def rest(self) -> str:
        return self._text[self._at :]

    def refusal(self, expected: str, remedy: str) -> ConfigurationError:
        """The error that says what was expected here, what came, and what to do."""
        rest = self.rest().strip()
        came = repr(rest[:_SHOWN] + ("…" if len(rest) > _SHOWN else "")) if rest else "its end"
        before = self._text[: self._at].strip()
        where = f" after {before[-_SHOWN:]!r}" if before else ""
        return ConfigurationError(f"{self._what}: expected {expected}{where}, got {came}: {remedy}.")


def _known(rest: str) -> str | None:
    """What to do about a mistake that is made often and begins so."""
    begun = re.match(r"\s*(NOT\s+LIKE\b|\w+|==|<>|&&|\|\||[^\s\w])", rest, re.IGNORECASE)
    return _REMEDIES.get(" ".join(begun.group(1).upper().split())) if begun else None


def _remedy_for_rest(reader: _Reader) -> str:
    if reader.is_behind_a_quote():
        return 'a text that holds a quote stands in quotes of the other kind, as in "it\'s"'
    return "write AND between two conditions"


def _condition(reader: _Reader) -> Condition:
    entity, key = _identifier(reader, _FILTER_ALIASES)
    comparator = _comparator(reader, entity, key)
    return Condition(entity, key, comparator, _value(reader, entity, key, comparator))


def _order(text: str) -> Order:
    if not isinstance(text, str):
        raise _no_order(text)
    reader = _Reader(text, "order_by")
    entity, key = _identifier(reader, _ALIASES)
    if entity == "dataset":
        raise ConfigurationError("order_by: runs have no order by datasets: sort by a metric, param, tag or attribute.")
    direction = reader.take(_DIRECTION)
    if not reader.is_at_end():
        remedy = "give several keys as a list" if reader.rest().startswith(",") else "write ASC or DESC at most"
        raise ConfigurationError(
            f"order_by: expected ASC, DESC or the end, got {reader.rest()!r} in {text!r}: {remedy}."
        )
    return Order(entity, key, direction is None or direction.group().upper() == "ASC")


def _no_order(given: object) -> ConfigurationError:
    return ConfigurationError(f"`order_by` must be texts such as 'metrics.f1_score DESC' (got {type(given).__name__}).")


def _identifier(reader: _Reader, aliases: dict[str, str]) -> tuple[Entity, str]:
    remedy = _known(reader.rest())
    found = None if remedy else reader.take(_IDENTIFIER)
    if not found:
        odd = _NAME_IN_NEED_OF_BACKTICKS.match(reader.rest().strip())
        quoted = f"put the name in backticks, {odd.group(1)}.`{odd.group(2)}`" if odd else None
        raise reader.refusal("a name such as metrics.f1_score", remedy or quoted or f"as in {_EXAMPLE}")
    before, name = found.group(1), _unquoted(found.group(2))
    if before is None:
        return "attribute", _attribute(name, aliases)
    entity = _ENTITIES.get(before.strip("`"))
    if entity is None:
        close = get_close_matches(before.strip("`").lower(), _ENTITIES, n=1) or ["metrics"]
        raise ConfigurationError(
            f"expected metrics, params, tags, attributes or datasets in front of .{name}, got {before!r}: "
            f"did you mean {close[0]}.{name}?"
        )
    if not name:
        raise ConfigurationError(f"expected a name after {before}., got none: write one, as in metrics.f1_score.")
    if entity == "dataset" and name not in _DATASET_KEYS:
        raise ConfigurationError(f"datasets has {_listed(_DATASET_KEYS)}, got {name!r}.")
    return entity, _attribute(name, aliases) if entity == "attribute" else name


def _unquoted(name: str) -> str:
    return name[1:-1] if name[0] in "`\"'" else name


def _attribute(name: str, aliases: dict[str, str]) -> str:
    plain = aliases.get(name, name)
    if plain in _ATTRIBUTES:
        return plain
    raise ConfigurationError(
        f"a run has the attributes {_listed(_ATTRIBUTES)}, got {name!r}: {_remedy_for_attribute(name)}"
    )


def _remedy_for_attribute(name: str) -> str:
    if name in _ENTITIES:
        return f"write {name}.NAME, without spaces around the point"
    if name[:1].isdigit():
        return f"write the name first, as in {_EXAMPLE}"
    if name.startswith("experiment"):
        return "name the experiment beside the filter, as experiment= or --experiment"
    entity, _, of_column = name.partition("_")
    if of_column and entity in ("metric", "param", "tag"):  # as in the columns of overt.runs()
        return f"write {_PLURALS[_ENTITIES[entity]]}.{of_column}"
    close = get_close_matches(name, _ATTRIBUTES, n=1)
    return (
        f"did you mean {close[0]}?" if close else f"write metrics.{name}, params.{name} or tags.{name} for one of these"
    )


def _comparator(reader: _Reader, entity: Entity, key: str) -> str:
    allowed = _comparators(entity, key)
    found = reader.take(_COMPARATOR)
    if not found:
        raise reader.refusal(f"one of {', '.join(allowed)}", _known(reader.rest()) or f"as in {_EXAMPLE}")
    comparator = " ".join(found.group().upper().split())
    if comparator not in allowed:
        raise ConfigurationError(
            f"{_PLURALS[entity]}.{key} is compared with {', '.join(allowed)}, got {comparator}"
            + _remedy_for_comparator(entity, comparator)
        )
    return comparator


def _comparators(entity: Entity, key: str) -> tuple[str, ...]:
    if entity == "metric" or (entity == "attribute" and key in _TIMES):
        return _ON_NUMBERS
    if entity in ("param", "tag"):
        return _ON_TEXTS + _ON_PRESENCE
    return _ON_TEXTS + _ON_LISTS if entity == "dataset" or key == "run_id" else _ON_TEXTS


def _remedy_for_comparator(entity: Entity, comparator: str) -> str:
    if comparator in _ON_LISTS:
        return ": only run_id and datasets take a list; ask once for each value."
    if comparator in _ON_PRESENCE:
        return ": only params and tags do; what a run does not have fulfils no other condition."
    if comparator in _ON_NUMBERS and entity == "param":
        return ": params are texts; overt.runs() has them as typed columns to compare afterwards."
    return "."


def _value(reader: _Reader, entity: Entity, key: str, comparator: str) -> Value:
    name = f"{_PLURALS[entity]}.{key}"
    if comparator in _ON_PRESENCE:
        return None
    if comparator in _ON_LISTS:
        found = reader.take(_LIST)
        if not found:
            raise reader.refusal("a list of quoted texts", f"write {name} {comparator} ('a', 'b')")
        return _texts(found.group(), f"{name} {comparator}")
    if _comparators(entity, key) is _ON_NUMBERS:
        if entity == "attribute" and _DATE.match(reader.rest().lstrip()):
            raise reader.refusal(
                "a time", "write milliseconds since 1970, such as 1769817600000 for 2026-01-31 in UTC, without quotes"
            )
        found = reader.take(_NUMBER)
        if not found:
            raise reader.refusal(
                "a number", f"write {name} {comparator} 0.9, without quotes; 1e-3 and 5e3 will do as well"
            )
        is_whole_time = entity == "attribute" and found.group().lstrip("-").isdigit()
        return int(found.group()) if is_whole_time else float(found.group())
    found = reader.take(_TEXT)
    if not found:
        raise reader.refusal("a quoted text", f"write {name} {comparator} '{_first_word(reader.rest())}'")
    return found.group()[1:-1]


def _first_word(rest: str) -> str:
    words = re.sub(r"['\"`()\u2018\u2019\u201c\u201d]", " ", rest).split()
    return words[0] if words else "…"


def _texts(literal: str, name: str) -> tuple[str, ...]:
    """The texts of a list, read as MLflow reads them: as a Python literal."""
    try:
        parsed = ast.literal_eval(literal)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        parsed = ()
    texts = parsed if isinstance(parsed, tuple) else (parsed,)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(f"{name}: expected a list of quoted texts such as ('a', 'b'), got {literal[:_SHOWN]}.")
    return texts


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


# -- values to answers -------------------------------------------------------------------------------------------------


def matches(run: RunSummary, conditions: Sequence[Condition], *, datasets_of: DatasetsOf | None = None) -> bool:
    """Whether all conditions hold for a run; ``datasets_of`` as for :func:`matching`."""
    return any(matching([run], conditions, datasets_of=datasets_of))


def matching(
    runs: Iterable[RunSummary], conditions: Sequence[Condition], *, datasets_of: DatasetsOf | None = None
) -> Iterator[RunSummary]:
    """The runs for which all conditions hold, as they come.

    Parameters
    ----------
    datasets_of : callable, optional
        Gives the datasets of a run, which no listing holds; asked only for runs that fulfil all other conditions.

    Raises
    ------
    ConfigurationError
        When a condition asks for something that cannot be known here.
    """
    found = iter(runs)
    for condition in sorted(conditions, key=lambda condition: condition.entity == "dataset"):
        found = filter(_test(condition, datasets_of), found)
    return found


def in_order(runs: Iterable[RunSummary], order: Sequence[Order] = ()) -> list[RunSummary]:
    """Sort runs as MLflow does: by ``order``, and equal ones newest first, then by id."""
    found = sorted(runs, key=lambda run: (-run.started_ms, run.id))
    for key in reversed(order):
        found = _sorted_by(found, key)
    return found


def _test(condition: Condition, datasets_of: DatasetsOf | None) -> Callable[[RunSummary], bool]:
    holds = _comparison(condition.comparator, condition.value)
    if condition.entity == "dataset":
        if datasets_of is None:
            raise ConfigurationError("datasets cannot be compared here: a listed run does not name its datasets.")
        field = operator.attrgetter(condition.key)
        return lambda run: any(holds(field(dataset)) for dataset in datasets_of(run))
    return _reading(condition.entity, condition.key, holds)


def _reading(entity: Entity, key: str, answer: Callable[[Any], Any]) -> Callable[[RunSummary], Any]:
    """``answer`` of what a run has under ``key``; spelled out, since a call more per run is a quarter of the time."""
    if entity == "metric":
        return lambda run: answer(run.metrics.get(key))
    if entity == "param":
        return lambda run: answer(run.params.get(key))
    if entity == "tag" and key in TAGS_OF_EVERY_RUN:
        said = operator.attrgetter(TAGS_OF_EVERY_RUN[key])
        return lambda run: answer(run.tags.get(key, said(run)))
    if entity == "tag":
        return lambda run: answer(run.tags.get(key))
    if key == "user_id":
        return lambda run: answer(run.tags.get("mlflow.user", "unknown"))  # MLflow's own word for nobody
    if key == "artifact_uri":
        raise ConfigurationError("attributes.artifact_uri is known to MLflow alone: this store's runs have none.")
    fields = {"run_id": "id", "run_name": "name", "start_time": "started_ms", "end_time": "ended_ms"}
    field = operator.attrgetter(fields.get(key, key))
    return lambda run: answer(field(run))


def _comparison(comparator: str, wanted: Any) -> Callable[[Any], bool]:
    """Whether a value, None for a missing one, compares so with ``wanted``."""
    match comparator:
        case "IS NULL":
            return lambda value: value is None
        case "IS NOT NULL":
            return lambda value: value is not None
        case "IN":
            return lambda value: value in wanted
        case "NOT IN":
            return lambda value: value is not None and value not in wanted
        case "LIKE" | "ILIKE":
            is_like = _pattern(wanted, re.IGNORECASE if comparator == "ILIKE" else 0).fullmatch
            return lambda value: value is not None and is_like(value) is not None
    compare = _OPERATORS[comparator]
    return lambda value: value is not None and compare(value, wanted)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def _pattern(like: str, flags: int) -> re.Pattern[str]:
    """What SQL's LIKE means: % any text, _ any character, and nothing that would escape them.

    What stands between two % is taken where it comes first, and never looked for again: no later place could serve
    better, and trying them all takes seconds for a text of 800 characters.
    """
    first, *between = ("".join("." if c == "_" else re.escape(c) for c in piece) for piece in like.split("%"))
    last = f".*{between.pop()}" if between else ""
    return re.compile(first + "".join(f"(?>.*?{piece})" for piece in between if piece) + last, flags | re.DOTALL)


def _sorted_by(runs: list[RunSummary], order: Order) -> list[RunSummary]:
    read = _reading(order.entity, order.key, lambda value: value)
    present, nan, missing = [], [], []
    for run in runs:
        value = read(run)
        if value is None:
            missing.append(run)
        elif isinstance(value, float) and math.isnan(value):
            nan.append(run)
        else:
            present.append(run)
    return sorted(present, key=read, reverse=not order.is_ascending) + nan + missing
