"""Every module of the package has a test file of its name, or an entry here with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

import notifier

PACKAGE = Path(notifier.__file__).parent
TESTS = Path(__file__).parents[1]

COVERED = {
    ("service/test_state.py", "rows, a log and the relay that writes it, with a real node"): (
        "state/reader",
        "state/rows",
        "state/tables",
    ),
    ("service/test_access_membership.py", "access by rows and by queries, with a real node"): (
        "access/operator_query",
    ),
    ("postgres/test_floods.py", "floods of notifications, and the link that listens"): (
        "database/floods",
        "delivery/listening",
    ),
    ("postgres/test_nats_key.py", "migrate and a node, around one key"): ("database/signing_key",),
    ("postgres/test_relay.py", "the relay's parts only work together, against a database"): (
        "relay/doorbell",
        "relay/leadership",
        "relay/pipeline",
        "relay/publisher",
        "relay/reader",
        "relay/store",
        "relay/connection",
    ),
    ("unit/test_backlog.py", "a backlog is stored in portions"): ("relay/portions",),
    ("postgres/test_disk.py", "maintenance is what keeps room on disk"): ("relay/maintenance",),
    ("postgres/test_migrations.py", "`migrate` is what uses them"): (
        "database/calendar",
        "database/constants",
        "database/grants",
        "database/revisions",
        "database/schema",
        "database/transactions",
        "installation",
        "database/triggers",
        "database/views",
    ),
    ("postgres/test_configuration.py", "`uninstall` is what removes"): ("database/removal",),
    ("postgres/test_dumps.py", "a copy is where owners differ"): ("database/ownership",),
    ("postgres/test_functions.py", "it loads each file of sql/"): ("database/sql",),
    ("postgres/test_session_settings.py", "connections are opened with their settings"): (
        "database/connections",
        "database/keepalive",
    ),
    ("service/test_servers_apart.py", "two servers behind one URL"): ("database/primary",),
    ("postgres/test_embedded.py", "the embedded server and its programs"): (
        "demo/postgres",
        "demo/programs",
    ),
    ("service/test_demo_nodes.py", "several nodes and NATS"): ("demo/nodes",),
    ("browser/test_demo_api.py", "the demo runs for all tests of that directory"): ("demo/run",),
    ("postgres/test_stream.py", "the stream over PostgreSQL"): ("delivery/postgres_stream",),
    ("service/test_nodes.py", "nodes are started, drained and replaced"): (
        "delivery/drain",
        "node",
        "server",
    ),
    ("unit/test_periodic_recheck.py", "the watchdogs that re-check access"): ("watchdogs",),
    ("unit/test_session.py", "commands, and three files without code"): (
        "commands",
        "delivery/owner",
        "delivery/services",
        "delivery/transport",
    ),
    ("unit/test_channel.py", "a channel's batches, and a protocol without code"): (
        "delivery/batch",
        "delivery/subscriber",
    ),
    ("unit/test_filtered_delivery.py", "all paths of messages with a filter, against a model"): (
        "delivery/skipping",
    ),
    ("unit/test_subscribe.py", "what sessions answer"): ("delivery/answers",),
    ("unit/test_session_timing.py", "conversations over the ASGI transport"): ("transport/asgi",),
    ("service/test_conversation.py", "the protocol, word by word"): (
        "errors",
        "messages",
        "transport/conversation",
        "transport/endpoint",
        "transport/handshake",
    ),
    ("unit/test_uvicorn.py", "the WebSocket protocol on uvicorn, and its queues"): (
        "transport/queues",
        "transport/websocket",
    ),
    ("unit/test_nats_feed.py", "what the feed and its healing deliver"): ("delivery/healing",),
    ("unit/test_nats_payloads.py", "what goes through NATS"): ("nats/heads", "nats/subjects"),
    ("postgres/test_nats_link.py", "servers, and what `check` finds out about them"): (
        "check/nats",
    ),
    ("service/test_nats.py", "nodes with NATS"): ("nats/path",),
    ("unit/test_jwks.py", "JSON Web Keys"): ("access/download", "access/keys"),
    ("postgres/test_why.py", "every situation goes through most of them"): (
        "why/evidence",
        "why/explanation",
        "why/question",
        "why/rows",
        "why/transactions",
        "why/users",
    ),
    ("postgres/test_check.py", "what `check` finds"): (
        "check/findings",
        "check/links",
        "check/prerequisites",
    ),
    ("unit/test_cli.py", "the command line"): ("inspection", "token_source"),
    ("unit/test_settings.py", "[[watch]] tables and servers are settings"): (
        "nats_urls",
        "watches",
    ),
    ("service/test_event_streams.py", "requests for messages, with a real node"): (
        "delivery/clients",
        "delivery/http_session",
        "transport/company_messages",
        "transport/problems",
    ),
    ("unit/test_client.py", "one connection after another, and its timers"): (
        "client/deadlines",
        "client/link",
        "client/reports",
    ),
    ("unit/test_client_rows.py", "rows are saved and restored"): ("client/snapshots",),
    ("unit/test_client_several.py", "several companies, each with its own state"): (
        "client/companies",
        "client/feed",
        "client/subscription",
    ),
    ("service/test_transports.py", "the client over HTTP, with a real node and proxies"): (
        "client/http_reader",
        "client/http_requests",
        "client/http_socket",
    ),
    ("service/test_writers.py", "each framework writes, and its messages have actor and number"): (
        "writers/actor",
        "writers/django",
        "writers/fastapi",
        "writers/sqlalchemy",
    ),
    ("service/test_client_conformance.py", "clients that are right, and clients that are not"): (
        "conformance/command",
        "conformance/peer",
        "conformance/program",
        "conformance/run",
        "conformance/scenarios",
        "conformance/script",
    ),
    ("service/test_testing.py", "an application's tests use the kit"): (
        "testing/databases",
        "testing/fixtures",
        "testing/follower",
        "testing/service",
        "testing/waiting",
    ),
    ("service/test_types.py", "what is generated, compiled and compared with real messages"): (
        "types/columns",
        "types/command",
        "types/csharp",
        "types/json_schema",
        "types/language",
        "types/python",
        "types/typescript",
    ),
}
"""Test file and reason, to the modules without a test file of their name."""

MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.name not in {"__init__.py", "__main__.py"}
)
FILES = {path.stem for path in TESTS.rglob("test_*.py")}


def has_its_own(module: str) -> bool:
    """Whether there is `test_NAME.py` or `test_PACKAGE_NAME.py`; a suffix may follow."""
    package, _, name = module.rpartition("/")
    stems = (f"test_{name}", f"test_{package}_{name}")
    return any(file == stem or file.startswith(f"{stem}_") for file in FILES for stem in stems)


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_a_test_file(module: str) -> None:
    """A new module needs `tests/unit/test_NAME.py`, or a line in COVERED."""
    if not any(module in modules for modules in COVERED.values()):
        assert has_its_own(module), f"no tests/**/test_{Path(module).name}.py, no entry in COVERED"


def test_the_exceptions_name_files_and_modules_that_exist() -> None:
    assert [file for file, _ in COVERED if not (TESTS / file).is_file()] == []
    listed = [module for modules in COVERED.values() for module in modules]
    assert [module for module in listed if module not in MODULES] == []
