"""What all sessions of a node share."""

from __future__ import annotations

from dataclasses import dataclass, field

from notifier.access.admission import Admission
from notifier.access.membership import Membership
from notifier.access.tokens import Tokens
from notifier.delivery.arrivals import Arrivals
from notifier.delivery.clients import Client
from notifier.delivery.hub import Hub
from notifier.delivery.state import NoStates, StateSource


@dataclass(slots=True)
class Services:
    """The services that all sessions of a node share.

    `auth_timeout` and `leeway` (of expiry) are in seconds. `max_companies`: of one session.
    """

    hub: Hub
    tokens: Tokens
    membership: Membership
    admission: Admission[Client]
    arrivals: Arrivals
    auth_timeout: float
    leeway: float
    max_companies: int = 100
    states: StateSource = field(default_factory=NoStates)
