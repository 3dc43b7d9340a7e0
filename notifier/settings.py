"""The settings: environment variables `NOTIFIER_…`, and `notifier.toml` for lists of tables."""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import ParseResult, urlparse

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from notifier import conninfo, origins
from notifier.errors import SettingsError
from notifier.schema_names import Named
from notifier.watches import NaiveTimestamps, Scope, Watch, calendar, inheriting

PREFIX = "NOTIFIER_"
CONFIG = "NOTIFIER_CONFIG"
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()+,;=:@-]+)+")
_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
"""The value of NAME_PORT that Kubernetes and Docker set for a service called NAME."""

_OTHERS = ("NOTIFIER_PG_BIN", "NOTIFIER_TEST_POSTGRES", "NOTIFIER_TOKEN", "NOTIFIER_URL")
"""Variables that something else reads: `demo`, the tests, `listen`."""

_OTHER_CLAIMS = ("exp", "nbf", "iat", "iss", "aud")
"""Claims that are read for something else (RFC 7519, section 4.1)."""

Strings = Annotated[tuple[str, ...], NoDecode]

_Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
_Upper = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
"""The words of a setting may be written in any case."""


class _Environment(EnvSettingsSource):
    """The environment without the service links that a container platform adds to it."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {
            name: value
            for name, value in super()._load_env_vars().items()
            if not (name.endswith("port") and value and _SERVICE_LINK.match(value))
        }


class Settings(Named, BaseSettings):  # type: ignore[misc]
    """All settings, read once at the start. `load` turns a wrong one into a SettingsError."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = None
    listen_database_url: SecretStr | None = None
    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=0, le=65535)] = 8181
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    jwt_secret: SecretStr | None = None
    jwt_public_key: str | None = None
    jwks_url: str | None = None
    jwt_algorithms: Strings | None = None
    jwt_issuer: Strings | None = None
    jwt_audience: Strings | None = None
    jwt_user_claim: Annotated[str, Field(min_length=1)] = "sub"
    jwt_companies_claim: Annotated[str, Field(min_length=1)] = "companies"
    jwt_leeway_seconds: Annotated[float, Field(ge=0, le=60)] = 10
    authorization: Annotated[Literal["employees", "claim"], _Lower] = "employees"
    membership_query: str | None = None
    user_query: str | None = None
    allowed_origins: Strings | None = None  # of browsers; unset or *: any
    token_cookie: Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")] | None = None
    state: Annotated[Literal["on", "off"], _Lower] = (
        "off"  # whether clients may request a company's rows
    )
    max_state_rows: Annotated[int, Field(ge=1)] = 10_000
    root_path: str = ""  # a prefix such as /realtime under which everything is served
    retention_hours: Annotated[float, Field(gt=0, le=24 * 366)] = 24
    max_log_bytes: Annotated[int, Field(ge=1024 * 1024, le=2**62)] = 1024**3
    bulk_limit: Annotated[int, Field(ge=1)] = 1000
    max_buffer_bytes: Annotated[int, Field(ge=64 * 1024)] = 1024**2
    auth_timeout_seconds: Annotated[float, Field(gt=0)] = 10
    ping_seconds: Annotated[float, Field(gt=0)] = 25
    deflate: bool = False
    doorbell: bool = True
    nats_url: SecretStr | None = None  # one or several, separated by commas
    nats_credentials: Path | None = None
    nats_prefix: str = "notifier"  # of all subjects
    max_connections: Annotated[int, Field(ge=1)] = 100_000
    max_companies_per_connection: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_connections_per_user: Annotated[int, Field(ge=1)] = 1000
    max_connections_per_address: Annotated[int, Field(ge=0)] = 10_000  # 0: any number
    trusted_proxies: Strings | None = None  # addresses and networks whose X-Forwarded-For is used
    status_host: str | None = None  # for /livez, /readyz and /metrics, if not the public one
    status_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    drain_seconds: Annotated[float, Field(ge=0, le=25)] = 10
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _Lower] = "info"
    log_format: Annotated[Literal["auto", "json", "text"], _Lower] = "auto"
    naive_timestamps: Annotated[NaiveTimestamps | None, _Upper] = (
        None  # of every [[watch]] that has none of its own
    )
    scope: tuple[Scope, ...] = ()
    watch: Annotated[tuple[Watch, ...], Field(min_length=1)] = Field(
        default_factory=lambda settings: calendar(settings.get("naive_timestamps"))
    )

    @field_validator(
        "jwt_algorithms",
        "jwt_issuer",
        "jwt_audience",
        "allowed_origins",
        "trusted_proxies",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip()) or None
        return value

    @field_validator("jwt_user_claim", "jwt_companies_claim")
    @classmethod
    def _claim(cls, value: str) -> str:
        if value in _OTHER_CLAIMS:
            raise ValueError(f"{value} has another meaning in a token")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None or "*" in value:
            return None
        return tuple(origins.normalize(origin) for origin in value)

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, value: str) -> str:
        path = "/" + value.strip("/")
        if path == "/":
            return ""
        if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
            raise ValueError("must be a path such as /realtime")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for network in value or ():
            ip_network(network)  # its error texts are readable
        return value

    @field_validator("database_url", "listen_database_url")
    @classmethod
    def _postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            conninfo.parse(value.get_secret_value())  # its errors are readable
        return value

    @field_validator("nats_url")
    @classmethod
    def _nats(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _servers(value.get_secret_value())
        return value

    @field_validator("nats_prefix")
    @classmethod
    def _subject(cls, value: str) -> str:
        if not _SUBJECT.fullmatch(value):
            raise ValueError("must be words of letters, digits, - and _ with dots in between")
        return value

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Gives each `[[watch]]` the `naive_timestamps` at the top of the file, or of the environment."""
        zone, watches = values.get("naive_timestamps"), values.get("watch")
        if str(zone).upper() != "UTC" or not isinstance(watches, list | tuple):
            return values
        return {**values, "watch": [inheriting(watch, "UTC") for watch in watches]}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("SSL_CERTFILE and SSL_KEYFILE go together")
        if self.nats_credentials is not None and self.nats_url is None:
            raise ValueError("NATS_CREDENTIALS needs NATS_URL")
        for path in (self.ssl_certfile, self.ssl_keyfile):
            if path is not None and not path.is_file():
                raise ValueError(f"no file {path}")
        if self.jwt_user_claim == self.jwt_companies_claim:
            raise ValueError("JWT_USER_CLAIM and JWT_COMPANIES_CLAIM name the same claim")
        watches = [watch.name for watch in self.watch]
        if len(set(watches)) < len(watches):
            raise ValueError("two [[watch]] have the same entity, and not two scopes")
        names = [scope.name for scope in self.scope]
        if len(set(names)) < len(names):
            raise ValueError("two [[scope]] have the same name")
        for watch in self.watch:
            if names and watch.scope is not None and watch.scope not in names:
                close = difflib.get_close_matches(watch.scope, names, n=1)
                near = f"; did you mean {close[0]}?" if close else ""
                raise ValueError(f"table {watch.table}: no [[scope]] {watch.scope}{near}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            _Environment(settings_cls),
            TomlConfigSettingsSource(settings_cls, _file()),
        )

    @property
    def given_watches(self) -> tuple[Watch, ...] | None:
        """The watches of `notifier.toml`; None where it has none, or is not there."""
        return self.watch if "watch" in self.model_fields_set else None

    @property
    def nats_servers(self) -> list[ParseResult]:
        """The URLs of NATS_URL."""
        return _servers(self.nats_url.get_secret_value()) if self.nats_url is not None else []

    @property
    def database(self) -> str:
        """The URL of the database. Raises SettingsError when it is not set."""
        if self.database_url is None:
            raise SettingsError("NOTIFIER_DATABASE_URL is not set")
        return self.database_url.get_secret_value()

    @property
    def listen_database(self) -> str:
        """The URL for direct connections: LISTEN and advisory locks do not work through a pooler."""
        url = self.listen_database_url
        return url.get_secret_value() if url else self.database


def _file() -> Path:
    return Path(os.environ.get(CONFIG) or "notifier.toml")


def _servers(urls: str) -> list[ParseResult]:
    """Raises ValueError, without the URL, which may hold a password."""
    servers = [urlparse(url.strip()) for url in urls.split(",") if url.strip()]
    for server in servers:
        try:
            _ = server.port
        except ValueError:  # its text has the port, which may be a part of a password
            raise ValueError("the port must be a number up to 65535") from None
        if server.scheme not in ("nats", "tls") or not server.hostname:
            raise ValueError("must be like nats://host:4222 or tls://host:4222")
        if server.path not in ("", "/") or server.query or server.fragment:
            raise ValueError("only a server and a user can be named, such as nats://host:4222")
    if not servers:
        raise ValueError("names no server")
    return servers


def warn_on_stderr(line: str) -> None:
    """Prints a warning as the command line prints errors."""
    sys.stderr.write(f"notifier: warning: {line}\n")


def load(
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = warn_on_stderr,
    **given: Any,
) -> Settings:
    """Reads the environment and `notifier.toml`; `given` (from the command line) has precedence.

    `warn` receives a line that names the unknown variables, if there are any: container platforms
    add some of their own. A given `environ` replaces the environment in that check only. Raises
    SettingsError in one line, which names the variable and never contains its value.
    """
    environ = os.environ if environ is None else environ
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} - {
        f"{PREFIX}WATCH",
        f"{PREFIX}SCOPE",
    }
    known |= {CONFIG, *_OTHERS}
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        warn(f"unknown settings are ignored: {', '.join(_suggest(unknown, known))}")
    config = environ.get(CONFIG)
    if config and not Path(config).is_file():
        raise SettingsError(f"{CONFIG}: no file {config}")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"notifier.toml: {error}") from error
    except ValidationError as error:
        raise SettingsError(_first(error, _file(), environ)) from error


def _suggest(unknown: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """The unknown names, each with the setting that it may be a misspelling of."""
    known = list(known)
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        yield f"{name} (did you mean {close[0]}?)" if close else name


def _first(error: ValidationError, file: Path, environ: Mapping[str, str]) -> str:
    """The first error, without the value, which may be a secret; of a file with the line."""
    wrong = error.errors(include_input=False, include_url=False)[0]
    path = wrong["loc"]
    text = wrong["msg"].removeprefix("Value error, ")
    if not path:
        return text
    name = str(path[0])
    written = file.read_text(encoding="utf-8") if file.is_file() else ""
    line = _line_of(written, path)
    if name in Settings.model_fields and name not in ("watch", "scope"):
        variable = f"{PREFIX}{name.upper()}"
        if line is None or variable in environ:
            return f"{variable}: {text}"
    if wrong["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = (
            Settings.model_fields
            if len(path) == 1
            else [each.name for each in fields(Scope if name == "scope" else Watch)]
        )
        close = difflib.get_close_matches(str(path[-1]), list(known), n=1)
        text = f"there is no such option{f'; did you mean {close[0]}?' if close else ''}"
    where = "notifier.toml" if line is None else f"notifier.toml, line {line}"
    return f"{where}: {'.'.join(map(str, path))}: {text}"


_HEADER = re.compile(r"""\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$""")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*(?:=|\.)""")


def _line_of(text: str, path: Sequence[str | int]) -> int | None:
    """The number of the line where a value stands, or the table that it is missing in; None: not found.

    `path`: as in pydantic's errors, `("watch", 1, "key")` is `key` of the second `[[watch]]`. Whatever
    comes deeper stands in the same line, or after it.
    """
    tables = [str(part) for part in path if isinstance(part, str)]
    number = next((part for part in path if isinstance(part, int)), 0)
    name, options = tables[0] if tables else "", tables[1:]
    count, found, section = -1, None, ""
    for index, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section = header[1].replace('"', "").replace(" ", "")
            if section == name:
                count += 1
                if count == number:
                    found = index
                    if not options:
                        return index
            elif count == number and options and section == f"{name}.{options[0]}":
                return index
        elif key := _KEY.match(line):
            word = key[1].strip("\"'")
            if not section and word == name and found is None:
                found = index
                if not options:
                    return index
            elif section == name and count == number and options and word == options[0]:
                return index
    return found
