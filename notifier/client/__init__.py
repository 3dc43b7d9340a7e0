"""The Python client: connects, resumes, renews its token and proves that it has every message."""

from notifier.client.client import Client, connect
from notifier.client.feed import ArrivalError
from notifier.client.pace import Pace
from notifier.client.reports import (
    CompanyState,
    Message,
    Position,
    Recovered,
    Report,
    Resync,
    Row,
    Skipped,
    State,
    Status,
)
from notifier.client.rows import Names, Rows, UnknownNames
from notifier.client.subscription import Subscription
from notifier.client.tokens import GetToken

__all__ = [
    "ArrivalError",
    "Client",
    "CompanyState",
    "GetToken",
    "Message",
    "Names",
    "Pace",
    "Position",
    "Recovered",
    "Report",
    "Resync",
    "Row",
    "Rows",
    "Skipped",
    "State",
    "Status",
    "Subscription",
    "UnknownNames",
    "connect",
]
