"""Structured logs: JSON lines, or readable ones on a terminal. They contain no token and no row."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from typing import Any, Literal

import msgspec
import structlog
from structlog.typing import EventDict, Processor


def set_up(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Writes our own log lines and those of the libraries to stderr in one format."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    rendering: list[Processor] = [
        structlog.processors.JSONRenderer(serializer=_serialize),
    ]
    if not as_json:
        rendering = [_printable, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn.access", "alembic", "asyncio", "websockets", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("asyncio").addFilter(_shortened)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _shortened(record: logging.LogRecord) -> bool:
    """Logs an error within the driver of PostgreSQL, for which asyncio ends the connection, without its traceback.

    A server causes it that sends what the driver does not expect. An error in our own callbacks keeps its traceback.
    """
    if record.exc_info and record.exc_info[2] is not None:
        *_, (frame, _) = traceback.walk_tb(record.exc_info[2])
        if frame.f_globals.get("__name__", "").partition(".")[0] == "asyncpg":
            first = record.getMessage().partition("\n")[0]
            record.msg, record.args = f"{first}: {record.exc_info[1]!r}", ()
            record.exc_info = record.exc_text = None
    return True


def _printable(_: object, __: str, event: EventDict) -> EventDict:
    """Escapes what would control a terminal: a text may be a client's words, such as the path of a handshake."""
    return {name: _escaped(text) if isinstance(text, str) else text for name, text in event.items()}


def _escaped(text: str) -> str:
    """Line breaks stay, as in tracebacks: the renderer escapes those of fields."""
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter == "\n"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _serialize(value: object, **_: object) -> str:
    """As JSON, in which the characters from DEL on that control a terminal are escaped, too."""
    text = msgspec.json.encode(value, enc_hook=str).decode()
    if text.isprintable():
        return text
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_CONTROLS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def use_logging() -> None:
    """Passes our log lines to the standard library's loggers, unless structlog is configured already."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[structlog.stdlib.filter_by_level, _as_call],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )


def _as_call(_: object, __: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """The arguments for a logger: the text with its fields behind it, and the exception."""
    exc_info = event.pop("exc_info", None)
    fields = "".join(f" {name}={value!r}" for name, value in event.items() if name != "event")
    return (f"{event['event']}{fields}",), {"exc_info": exc_info}
