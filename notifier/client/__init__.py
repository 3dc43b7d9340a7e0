"""The Python client: connects, resumes, renews its token and proves that it has every message."""

from notifier.client.client import Client, connect
from notifier.client.pace import Pace
from notifier.client.reports import (
    Message,
    Position,
    Recovered,
    Report,
    Resync,
    Row,
    State,
    Status,
)
from notifier.client.tokens import GetToken

__all__ = [
    "Client",
    "GetToken",
    "Message",
    "Pace",
    "Position",
    "Recovered",
    "Report",
    "Resync",
    "Row",
    "State",
    "Status",
    "connect",
]
