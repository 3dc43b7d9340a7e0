"""A watched table: one `[[watch]]` of `notifier.toml`, one row of `notifier.watches`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeAlias

from pydantic import ConfigDict, Field, StrictBool, StrictInt, StrictStr, TypeAdapter

from notifier.companies import SCOPE_NAME
from notifier.errors import SchemaMissing
from notifier.messages import PROTOCOL_TYPES
from notifier.paths import ARROW, Path, is_path, normalized, unquoted
from notifier.patterns import Pattern


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A kind of company, one `[[scope]]` of `notifier.toml`: its companies are written `name:id`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=f"^{SCOPE_NAME}$", max_length=60)]
    membership: Annotated[str, Field(min_length=1)] | None = None
    """The query that decides on access: $1 the id without the scope, $2 the user. None: member rows."""


class StoredRow(Protocol):
    """A row of `notifier.watches`."""

    def __getitem__(self, column: str, /) -> Any: ...


Case: TypeAlias = Literal["pascal", "camel", "column"]
"""How columns are spelled as properties: `StartsAt`, `startsAt`, or as the catalogue has them."""

Condition: TypeAlias = StrictBool | StrictInt | StrictStr

NaiveTimestamps: TypeAlias = Literal["UTC"]

SCHEMA = "schema"
"""The `company` of a watch whose table is a pattern: the name of the schema."""

_COLUMNS = {"table": "table_name", "case": "spelling"}
"""Fields whose column in `notifier.watches` has another name."""

_LISTS = ("visible_to", "exclude")
"""Fields that are lists of columns: arrays in `notifier.watches`."""

_PAIRS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "rename": (str, str),
    "member_if": (json.loads, json.dumps),
}
"""Fields that are mappings by column: arrays of pairs in `notifier.watches`; how their values are read and written."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How one table's rows become messages. Columns are named as the catalogue has them."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    table: Annotated[str, Field(min_length=1)]
    """As in SQL: with its schema or without, quoted where it needs quotes. With `*` in its schema it is
    a table of each schema that matches, and `company` is "schema": each has one company.
    """
    entity: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=60)]
    key: str | Annotated[tuple[str, ...], Field(min_length=1)] = "id"
    """The column that names a row, or the columns that do so together."""
    company: str = "company_id"
    """The column that names its company, or a path along foreign keys to one (`notifier.paths`)."""
    scope: str | None = None
    """The kind of company that its rows belong to: company 7 is `team:7` for clients."""
    member: str | None = None
    """The column that names a user whom the row gives access to its company."""
    member_if: Mapping[str, Condition] = field(default_factory=dict, hash=False)
    """The values that columns have in rows that give access. True: the column is true, or not null;
    False: it is false or null.
    """
    deleted_if: str | None = None
    """The column that marks a softly deleted row: it is neither null nor false."""
    visible_to: tuple[str, ...] = ()
    """Columns that name the users who see the row, or hold arrays of them. All empty: every user does."""
    exclude: tuple[str, ...] = ()
    """Columns that are neither stored nor sent."""
    created: str | None = "{entity}Created"
    """The messages' names. Empty or None: such a change sends none."""
    updated: str | None = "{entity}Updated"
    deleted: str | None = "{entity}Deleted"
    rename: Mapping[str, Annotated[str, Field(min_length=1)]] = field(
        default_factory=dict, hash=False
    )
    """The properties of single columns, whatever `case` is."""
    case: Case = "pascal"
    naive_timestamps: NaiveTimestamps | None = None
    """The zone of timestamps without one: sent with its offset. None: sent without an offset."""
    state_where: Annotated[str, Field(min_length=1)] | None = None
    """The condition of the rows that are part of a state, in SQL. None: all are."""
    company_column: str | None = field(init=False, repr=False, compare=False)
    """The company's column in images: of a path `->` and the name, which capture adds to the row. None
    where the schema's name is the company.
    """

    def __post_init__(self) -> None:
        for name in ("created", "updated", "deleted"):
            message = (getattr(self, name) or "").replace("{entity}", self.entity)
            object.__setattr__(self, name, message or None)
        key = tuple(map(unquoted, self.key_columns))
        object.__setattr__(self, "key", key if len(key) > 1 else key[0])
        if is_path(self.company):
            object.__setattr__(self, "company", normalized(self.company))
            object.__setattr__(self, "company_column", f"{ARROW}{self.name}")
            _ = self.path  # refuses what is none
        else:
            object.__setattr__(self, "company", unquoted(self.company))
            column = None if self.pattern is not None else self.company
            object.__setattr__(self, "company_column", column)
        for name in ("member", "deleted_if"):
            column = getattr(self, name)
            object.__setattr__(self, name, column and unquoted(column))
        if self.pattern is not None and self.company != SCHEMA:
            raise ValueError('the table has * in its schema, so the company must be "schema"')
        for name in _LISTS:
            object.__setattr__(self, name, tuple(map(unquoted, getattr(self, name))))
        for name in _PAIRS:
            pairs = {unquoted(column): value for column, value in getattr(self, name).items()}
            object.__setattr__(self, name, pairs)
        if self.member_if and self.member is None:
            raise ValueError("member_if without member: no user would get access")
        if lost := self._needed & set(self.exclude):
            raise ValueError(f"exclude names {', '.join(sorted(map(str, lost)))}, which is needed")
        if self.member is not None and not (self.updated and self.deleted):
            raise ValueError("a table with members needs messages for updates and deletions")

    @classmethod
    def from_row(cls, row: StoredRow) -> Self:
        """From a row of `notifier.watches`, which has a column for each field.

        Raises SchemaMissing where a column is missing: the table is an older version's.
        """
        try:
            named = [each.name for each in fields(cls) if each.init]
            values = {name: row[_COLUMNS.get(name, name)] for name in named}
            values["company"] = row["path"] or values["company"] or SCHEMA
            values["entity"] = values["entity"].partition("/")[0].partition("@")[0]
            more_keys = row["more_keys"]
        except KeyError as error:
            raise SchemaMissing(
                f"notifier.watches has no column {error.args[0]}; run: notifier migrate"
            ) from error
        if more_keys:
            values["key"] = (values["key"], *more_keys)
        for name in _LISTS:
            values[name] = tuple(values[name])
        for name, (read, _) in _PAIRS.items():
            values[name] = {column: read(value) for column, value in values[name]}
        return cls(**values)

    def to_row(self) -> dict[str, Any]:
        """The values for its row of `notifier.watches`, by column."""
        key, *more_keys = self.key_columns
        values = {**asdict(self), "entity": self.name, "key": key}
        for name, (_, write) in _PAIRS.items():
            values[name] = [(column, write(value)) for column, value in values[name].items()]
        values["more_keys"] = more_keys
        values["company"] = values.pop("company_column")
        values["path"] = None if self.path is None else self.company
        return {_COLUMNS.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the text of `to_json`, which an older or newer version may have written."""
        given = json.loads(text)
        known = {
            each.name: given[each.name] for each in fields(cls) if each.init and each.name in given
        }
        return TypeAdapter(cls).validate_python(known)

    def to_json(self) -> str:
        """All fields, as a row of `notifier.patterns` has them."""
        return json.dumps(asdict(self))

    @property
    def path(self) -> Path | None:
        """The path to the company; None where a column names it."""
        return Path.parse(self.company) if is_path(self.company) else None

    @property
    def name(self) -> str:
        """The watch among all: its entity, and its scope if it has one. Watches of two scopes may share an entity."""
        return self.entity if self.scope is None else f"{self.entity}@{self.scope}"

    @cached_property
    def pattern(self) -> Pattern | None:
        """The pattern that the table's name is, where it is one."""
        return Pattern.parse(self.table)

    @cached_property
    def adds_company(self) -> bool:
        """Whether messages have the company beside the columns.

        It is not the value of a column; or it is that of the key, which has the entity's name: `AccountId`.
        """
        if self.scope is not None or self.company_column is None:
            return True
        is_key = self.key == self.company_column and self.case != "column"
        return is_key and self.property(self.key) != self.property(())

    @property
    def names(self) -> tuple[str | None, str | None, str | None]:
        """The messages' names for a creation, an update and a deletion; None: no message is sent."""
        return self.created, self.updated, self.deleted

    @property
    def table_name(self) -> str:
        """The table's name alone: without its schema, and as the catalogue has it."""
        names = re.findall(r'"(?:[^"]|"")+"|[^".]+', self.table)
        return unquoted(names[-1]) if names else self.table

    @property
    def grants(self) -> bool:
        """Whether one of its rows may give a user access to a company."""
        return self.member is not None or self.key == self.company_column

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that name a row together: mostly one."""
        return (self.key,) if isinstance(self.key, str) else self.key

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns of a message with keys only: those of the key and of the company."""
        company = self.company_column
        return self.key_columns if company is None else (*self.key_columns, company)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of an image that is stored with its keys only."""
        named = (*self.key_columns, self.company_column, self.deleted_if, *self.visible_to)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def _needed(self) -> set[str | None]:
        """The columns without which a row cannot be netted, or its company, users or readers cannot be determined."""
        start = None if self.path is None else self.path.start
        return {*self.keys, start, self.member, *self.member_if}

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the table that an option names, each once.

        `migrate` refuses one that the table lacks (`notifier.database.catalogue.problems`), so a new option that names
        columns is added here.
        """
        path = self.path
        keys = [path.start if path and name == self.company_column else name for name in self.keys]
        named = (*keys, self.member, *self.member_if, *self.exclude, *self.rename)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def company_property(self) -> str:
        """The property that has the id by which clients name the company."""
        column = self.company_column
        return self.property(() if column is None or self.adds_company else column)

    def property(self, column: str | tuple[str, ...]) -> str:
        """The name of a column in messages: `starts_at` → `StartsAt`, the key → `EventId`.

        `rename` goes first. With `case = "column"` key and company keep their names too; a key of
        several columns, which is no column, is `EventId` then. The company's id with its scope, or as
        the schema's name, is none either, and is named by `()`.
        """
        if isinstance(column, tuple):
            name = f"{self.entity}Id" if column else "CompanyId"
            return _camel(name) if self.case == "camel" else name
        if column[:2] == ARROW and column == self.company_column:
            return self.property(())
        if column in self.rename:
            return self.rename[column]
        if self.case == "column":
            return column
        if column == self.key:
            name = f"{self.entity}Id"
        elif column == self.company_column and not self.adds_company:
            name = "CompanyId"
        else:
            name = property_name(column)
        return name if self.case == "pascal" else _camel(name)


def property_name(column: str) -> str:
    """`starts_at` → `StartsAt`."""
    return "".join(word[:1].upper() + word[1:] for word in column.split("_"))


def _camel(name: str) -> str:
    """`StartsAt` → `startsAt`; a name in capitals is one word: `URL` → `url`."""
    return name.lower() if name.isupper() else name[:1].lower() + name[1:]


CALENDAR = (
    Watch(table="events", entity="Event"),
    Watch(
        table="employees",
        entity="Employee",
        member="user_id",
        created="EmployeeAdded",
        deleted="EmployeeRemoved",
    ),
    Watch(table="companies", entity="Company", company="id", created=""),
)
"""What is watched without a `notifier.toml`."""


def clashes(watches: Sequence[Watch]) -> Iterator[tuple[int, str, str]]:
    """The index of each watch with a name that means something else, its option, and the fault.

    The type of a message decides which filters it passes, so it is that of one entity.
    """
    names = [watch.name for watch in watches]
    first_of: dict[str, int] = {}
    for index, watch in enumerate(watches):
        if (first := names.index(watch.name)) < index:
            text = f"{watch.entity} is also the entity of [[watch]] {first + 1}; only watches of two scopes may share one"
            yield index, "entity", text
        if watch.entity == "snapshot" and watch.path is not None:
            yield (
                index,
                "entity",
                "snapshot is kept for the snapshot of a writer where `company` is a path",
            )
        for option, kind in zip(("created", "updated", "deleted"), watch.names, strict=True):
            if kind in PROTOCOL_TYPES:
                yield index, option, f"{kind} is a message of the protocol itself"
            if kind and watches[first := first_of.setdefault(kind, index)].entity != watch.entity:
                text = (
                    f"{kind} is also the type of messages of [[watch]] {first + 1}, another entity"
                )
                yield index, option, text


def with_zone(watch: Watch, zone: NaiveTimestamps | None) -> Watch:
    """The watch, with `zone` for its naive timestamps where it has none of its own."""
    return replace(watch, naive_timestamps=watch.naive_timestamps or zone)


def inheriting(watch: object, zone: NaiveTimestamps) -> object:
    """A watch, or the options of one, with the `zone` at the top of the file where it has none of its own."""
    if isinstance(watch, Watch):
        return with_zone(watch, zone)
    return {"naive_timestamps": zone, **watch} if isinstance(watch, dict) else watch


def calendar(zone: NaiveTimestamps | None) -> tuple[Watch, ...]:
    """The calendar's watches, with `zone` for their naive timestamps."""
    return tuple(with_zone(watch, zone) for watch in CALENDAR)
