"""A kit for testing an application: PostgreSQL with the notifier, and clients that await messages.

pytest_plugins = ["notifier.testing"]          # in conftest.py

def test_a_meeting_is_announced(notifier):
    client = notifier.follow("u1", company)
    create_meeting(company, "Retro")           # the application under test
    assert client.expect("EventCreated").data["Title"] == "Retro"
"""

from notifier.testing.fixtures import (
    notifier,
    notifier_database_url,
    notifier_postgres,
    notifier_schema,
    notifier_settings,
    notifier_template,
)
from notifier.testing.follower import Follower
from notifier.testing.service import RunningNotifier

__all__ = [
    "Follower",
    "RunningNotifier",
    "notifier",
    "notifier_database_url",
    "notifier_postgres",
    "notifier_schema",
    "notifier_settings",
    "notifier_template",
]
