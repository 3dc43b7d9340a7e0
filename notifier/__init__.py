"""Sends committed changes of PostgreSQL rows to the WebSocket clients of their company.

`Notifier` and `Settings` run it inside an application of your own; `notifier.client`,
`notifier.writers` and `notifier.testing` are public as well. Everything else may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from notifier.embedding import Notifier
    from notifier.settings import Settings

__all__ = ["Notifier", "Settings", "__version__"]
__version__ = "0.2.0"

_HOMES = {"Notifier": "notifier.embedding", "Settings": "notifier.settings"}
"""Where the public names are. A client imports this package without loading the server."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
