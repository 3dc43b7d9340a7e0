"""The settings: environment variables `NOTIFIER_…`, and `notifier.toml` for lists of tables."""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import ParseResult

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from notifier import conninfo, nats_urls, origins
from notifier.errors import SettingsError
from notifier.schema_names import Named
from notifier.setting_errors import SECTIONS, Disagreement, Origin, describe
from notifier.watches import NaiveTimestamps, Scope, Watch, calendar, clashes, inheriting

PREFIX = "NOTIFIER_"
CONFIG = "NOTIFIER_CONFIG"
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()+,;=:@-]+)+")
_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
"""The value of NAME_PORT that Kubernetes and Docker set for a service called NAME."""

_SECTION_VARIABLES = {f"{PREFIX}{name}".lower() for name in SECTIONS}

_OTHERS = ("NOTIFIER_PG_BIN", "NOTIFIER_TEST_POSTGRES", "NOTIFIER_TOKEN", "NOTIFIER_URL")
"""Variables that something else reads: `demo`, the tests, `listen`."""

_OTHER_CLAIMS = ("exp", "nbf", "iat", "iss", "aud")
"""Claims that are read for something else (RFC 7519, section 4.1)."""

MOST = 10**9
"""The largest count that a setting takes: it fits PostgreSQL's integers."""

Strings = Annotated[tuple[str, ...], NoDecode]

_Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
_Upper = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
"""The words of a setting may be written in any case."""


class _File(TomlConfigSettingsSource):
    """`notifier.toml`; editors of Windows begin it with a byte order mark."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return tomllib.loads(file_path.read_bytes().decode("utf-8-sig"))


class _Environment(EnvSettingsSource):
    """The environment without a container platform's service links, and without tables, which only the file can have."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {
            name: value
            for name, value in super()._load_env_vars().items()
            if not (name.endswith("port") and value and _SERVICE_LINK.match(value))
            and name not in _SECTION_VARIABLES
        }


class Settings(Named, BaseSettings):  # type: ignore[misc]
    """All settings, read once at the start. `load` turns a wrong one into a SettingsError."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
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
    max_state_rows: Annotated[int, Field(ge=1, le=MOST)] = 10_000
    root_path: str = ""  # a prefix such as /realtime under which everything is served
    retention_hours: Annotated[float, Field(gt=0, le=24 * 366)] = 24
    max_log_bytes: Annotated[int, Field(ge=1024 * 1024, le=2**62)] = 1024**3
    bulk_limit: Annotated[int, Field(ge=1, le=MOST)] = 1000
    max_buffer_bytes: Annotated[int, Field(ge=64 * 1024, le=1024**3)] = 1024**2
    auth_timeout_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 10
    ping_seconds: Annotated[float, Field(ge=0.1, le=24 * 3600)] = 25
    deflate: bool = False
    doorbell: bool = True
    nats_url: SecretStr | None = None  # one or several, separated by commas
    nats_credentials: Path | None = None
    nats_prefix: str = "notifier"  # of all subjects
    max_connections: Annotated[int, Field(ge=1, le=MOST)] = 100_000
    max_companies_per_connection: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_connections_per_user: Annotated[int, Field(ge=1, le=MOST)] = 1000
    max_connections_per_address: Annotated[int, Field(ge=0, le=MOST)] = 10_000  # 0: any number
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

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: object, info: ValidationInfo) -> object:
        """Refuses `true` for a number, which pydantic takes for 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and _is_number(kind):
            raise PydanticKnownError("float_type")
        return value

    @field_validator("jwt_user_claim", "jwt_companies_claim")
    @classmethod
    def _claim(cls, value: str) -> str:
        if value in _OTHER_CLAIMS:
            raise ValueError(f"{value} has another meaning in a token; must be a claim of your own")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None or "*" in value:
            return None
        return tuple(origins.normalize(origin) for origin in value)

    @field_validator("ssl_certfile", "ssl_keyfile")
    @classmethod
    def _existing(cls, value: Path | None) -> Path | None:
        if value is not None and not _is_file(value):
            raise ValueError(f"no file {value}")
        return value

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
        for text in value or ():
            try:
                network = ip_network(text, strict=False)
            except ValueError:
                raise ValueError(
                    f"{text!r} is not an address or a network such as 10.0.0.0/8"
                ) from None
            if ip_address(text.partition("/")[0]) != network.network_address:
                raise ValueError(f"{text} is a host in a network; write {network}")
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
            nats_urls.parse(value.get_secret_value())
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
        for one, other in (
            ("ssl_certfile", "ssl_keyfile"),
            ("ssl_keyfile", "ssl_certfile"),
            ("nats_credentials", "nats_url"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is None:
                raise Disagreement((one,), "needs", other)
        if self.jwt_user_claim == self.jwt_companies_claim:
            one, other = "jwt_user_claim", "jwt_companies_claim"
            if one not in self.model_fields_set:
                one, other = other, one
            raise Disagreement((one,), "names the same claim as", other)
        names = [scope.name for scope in self.scope]
        for index, name in enumerate(names):
            if (first := names.index(name)) < index:
                text = f"{name} is also the name of [[scope]] {first + 1}"
                raise Disagreement(("scope", index, "name"), text)
        for index, option, text in clashes(self.watch):
            raise Disagreement(("watch", index, option), text)
        for index, watch in enumerate(self.watch):
            if names and watch.scope is not None and watch.scope not in names:
                close = difflib.get_close_matches(watch.scope, names, n=1)
                near = f"; did you mean {close[0]}?" if close else ""
                text = f"there is no [[scope]] {watch.scope}{near}"
                raise Disagreement(("watch", index, "scope"), text)
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
            _File(settings_cls, _file()),
        )

    @property
    def given_watches(self) -> tuple[Watch, ...] | None:
        """The watches of `notifier.toml`; None where it has none, or is not there."""
        return self.watch if "watch" in self.model_fields_set else None

    @property
    def nats_servers(self) -> list[ParseResult]:
        """The URLs of NATS_URL."""
        return (
            nats_urls.parse(self.nats_url.get_secret_value()) if self.nats_url is not None else []
        )

    @property
    def database(self) -> str:
        """The URL of the database. Raises SettingsError when it is not set."""
        if self.database_url is None:
            raise SettingsError("NOTIFIER_DATABASE_URL is not set")
        return self.database_url.get_secret_value()

    @property
    def listen_database(self) -> str:
        """The URL for direct connections: LISTEN and session-level advisory locks do not work through a pooler."""
        url = self.listen_database_url
        return url.get_secret_value() if url else self.database


def _is_number(kind: object) -> bool:
    return kind in (int, float) or any(map(_is_number, get_args(kind)))


def _file() -> Path:
    return Path(os.environ.get(CONFIG) or "notifier.toml")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def warn_on_stderr(line: str) -> None:
    """Prints a warning as the command line prints errors."""
    sys.stderr.write(f"notifier: warning: {line}\n")


def load(
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = warn_on_stderr,
    *,
    are_options: bool = False,
    **given: Any,
) -> Settings:
    """Reads the environment and `notifier.toml`; `given` has precedence: options of the command line, if `are_options`.

    `warn` receives a line that names the unknown variables, if there are any: container platforms
    add some of their own. A given `environ` replaces the environment in that check only. Raises
    SettingsError in one line (`notifier.setting_errors`).
    """
    environ = os.environ if environ is None else environ
    names = [name for name in Settings.model_fields if name not in SECTIONS]
    known = {*(f"{PREFIX}{name.upper()}" for name in names), CONFIG, *_OTHERS}
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        warn(f"unknown settings are ignored: {', '.join(_suggest(unknown, known))}")
    config = environ.get(CONFIG)
    if config and not _is_file(Path(config)):
        raise SettingsError(f"{CONFIG}: no file {config}")
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except OSError as error:
        raise SettingsError(f"{_file()}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{_file()}: must be UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{_file()}: not valid TOML: {error}") from error
    except ValidationError as error:
        passed = [name for name, value in given.items() if value is not None]
        origin = Origin(PREFIX, passed, _Environment(Settings)(), _file(), are_options)
        raise SettingsError(describe(error, Settings, origin)) from error
    for name in ("database_url", "listen_database_url"):
        url = getattr(settings, name)
        for text in conninfo.weaknesses(conninfo.parse(url.get_secret_value()) if url else {}):
            warn(f"{PREFIX}{name.upper()}: {text}")
    return settings


def _suggest(unknown: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """The unknown names, each with the setting that it may be a misspelling of."""
    known = list(known)
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        yield f"{name} (did you mean {close[0]}?)" if close else name
