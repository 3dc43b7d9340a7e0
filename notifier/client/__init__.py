"""The Python client: connects, resumes, renews its token and proves that it has every message."""

from notifier.client.client import (
    Client,
    Message,
    Pace,
    Position,
    Recovered,
    Resync,
    Status,
    connect,
)

__all__ = ["Client", "Message", "Pace", "Position", "Recovered", "Resync", "Status", "connect"]
