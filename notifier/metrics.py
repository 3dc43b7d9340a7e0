"""The metrics at `GET /metrics`. None has a label for a user, a company or a connection.

Several worker processes share a directory (PROMETHEUS_MULTIPROC_DIR), from which each of them
reports the metrics of all. `multiprocess_mode` is how their values of a gauge are combined.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from notifier import __version__
from notifier.errors import Closure

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST

disable_created_metrics()  # they double the number of series

SOCKETS = Gauge(
    "notifier_sockets", "Open WebSockets, streams and polls", multiprocess_mode="livesum"
)
CONNECTIONS = Gauge(
    "notifier_connections",
    "The same, by transport",
    ["transport"],
    multiprocess_mode="livesum",
)
WEBSOCKETS = CONNECTIONS.labels("websocket")
STREAMS = CONNECTIONS.labels("sse")
POLLS = CONNECTIONS.labels("poll")
SUBSCRIBERS = Gauge(
    "notifier_subscribers", "Subscriptions of sockets to companies", multiprocess_mode="livesum"
)
CHANNELS = Gauge(
    "notifier_channels", "Companies that this node keeps in memory", multiprocess_mode="livesum"
)
FILTERS = Gauge(
    "notifier_filters", "Distinct filters of each company, in all", multiprocess_mode="livesum"
)
CHANGES = Counter("notifier_changes_total", "Changes that the relay has read")
MESSAGES = Counter("notifier_messages_total", "Messages that the relay has stored")
BATCHES = Counter("notifier_batches_total", "Batches that the relay has stored")
BROKEN = Counter(
    "notifier_broken_changes_total", "Changes that name no company: their message goes to none"
)
PARTIAL = Counter(
    "notifier_partial_messages_total",
    "Messages with keys only: too large, or not representable in JSON",
)
REPLACED = Counter(
    "notifier_replaced_messages_total",
    "Messages that PostgreSQL refused to store; a Resync took their place",
)
RECEIVED = Counter(
    "notifier_received_messages_total", "Messages that this node received from the stream"
)
PATH = Gauge(
    "notifier_stream_path",
    "1 for the path by which messages reach this node now: nats, or postgres",
    ["path"],
    multiprocess_mode="livemax",
)
NATS_PUBLISHED = Counter(
    "notifier_nats_published_total", "Payloads that the relay has published to NATS"
)
NATS_REJECTED = Counter(
    "notifier_nats_rejected_total",
    "Payloads received from NATS without the signature of a relay of this database",
)
HEALED = Counter(
    "notifier_healed_messages_total", "Messages that NATS had lost, read from the log instead"
)
DELIVERED = Counter("notifier_delivered_messages_total", "Messages written to sockets")
RESTRICTED = Counter(
    "notifier_restricted_messages_total",
    "Messages of which users got views of their own, in companies that have subscribers here",
)
SKIPPED = Counter("notifier_skipped_messages_total", "Skipped messages written to sockets")
REPLAYED = Counter("notifier_replayed_messages_total", "Messages written to sockets that resume")
RESYNCS = Counter("notifier_resyncs_total", "Resync messages, by reason", ["reason"])
RESUMES = Counter("notifier_resumes_total", "Resumes, by whether they were complete", ["recovered"])
REVOKED = Counter("notifier_revoked_total", "Subscriptions that ended because the user lost access")
REFUSED = Counter("notifier_refused_total", "Subscriptions that were refused")
HANDSHAKES_REFUSED = Counter(
    "notifier_handshakes_refused_total", "Handshakes that were refused, by reason", ["reason"]
)
CLOSED = Counter("notifier_closed_total", "Sockets that the server closed, by close code", ["code"])
LAG = Histogram(
    "notifier_lag_seconds",
    "Time from the change to the write to the sockets",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
STAGES = Histogram(
    "notifier_stage_seconds",
    "Time that a batch takes in a stage of its way: wait, read, net, store, receive, write",
    ["stage"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
LOOP = Histogram(
    "notifier_loop_delay_seconds",
    "How late a timer of the event loop fires, measured every second",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
RELAY = Gauge("notifier_relay", "1 on the node that relays", multiprocess_mode="livesum")
AWAKE = Gauge(
    "notifier_relay_awake",
    "1 while the relay reads without waiting for the doorbell",
    multiprocess_mode="livesum",
)
RINGS = Counter("notifier_doorbell_rings_total", "Times that the doorbell woke the relay")
FALLBACK_FINDS = Counter(
    "notifier_fallback_finds_total",
    "Unannounced changes: the sleeping relay found them without the doorbell",
)
RECONNECTS = Counter(
    "notifier_reconnects_total", "Database connections that were lost, by link", ["link"]
)
LINKS_UP = Gauge(
    "notifier_database_links_up",
    "1 while a connection to the database is open, by link",
    ["link"],
    multiprocess_mode="livemin",
)
LOG_BYTES = Gauge(
    "notifier_log_bytes", "Size of changes and messages on disk", multiprocess_mode="livemax"
)
LOG_LIMIT_BYTES = Gauge(
    "notifier_log_limit_bytes",
    "Limit of notifier_log_bytes: MAX_LOG_BYTES",
    multiprocess_mode="livemax",
)
READY = Gauge(
    "notifier_ready", "1 while the path from trigger to hub is proven", multiprocess_mode="livemin"
)
WATCH_PROBLEMS = Gauge(
    "notifier_watch_problems",
    "Watched tables, or parts of them, that are not captured as configured",
    multiprocess_mode="livemax",
)
QUEUE = Gauge(
    "notifier_notify_queue_usage",
    "Usage of PostgreSQL's notification queue, 0 to 1",
    multiprocess_mode="livemax",
)
CERTIFICATE_EXPIRY = Gauge(
    "notifier_certificate_expiry_timestamp_seconds",
    "When the TLS certificate expires, in unix seconds; 0 without TLS",
    multiprocess_mode="livemin",
)
WORKERS = Gauge(
    "notifier_workers", "Processes that these metrics are of", multiprocess_mode="livesum"
)
WORKERS.set(1)
BUILD_INFO = Gauge(
    "notifier_build_info",
    "1, with the version as a label",
    ["version"],
    multiprocess_mode="livemax",
)
BUILD_INFO.labels(__version__).set(1)

# Series that exist from the start, so that rate() sees the first event.
WAIT = STAGES.labels("wait")  # from the oldest change of a batch to the relay's reading
READ = STAGES.labels("read")  # the statement that reads it
NET = STAGES.labels("net")  # netting and rendering
STORE = STAGES.labels("store")  # from then to the commit, with the wait for the batch before
RECEIVE = STAGES.labels("receive")  # from numbering to this node, with the commit
WRITE = STAGES.labels("write")  # from this node's receipt to the last socket of the company
for _reason in ("bulk", "truncate", "overflow", "epoch"):
    RESYNCS.labels(_reason)
for _recovered in ("true", "false"):
    RESUMES.labels(_recovered)
for _path in ("nats", "postgres"):
    PATH.labels(_path)
for _code in {str(closure.code) for closure in Closure.__subclasses__()} | {"1002", "1006", "1007"}:
    CLOSED.labels(_code)
for _link in ("node", "relay"):
    RECONNECTS.labels(_link)


def expect_links(*names: str) -> None:
    """Shows these links from now on: as down until they are open."""
    for name in names:
        _links[name] = LINKS_UP.labels(name)


def show_link(name: str, up: bool) -> None:
    """A connection of this name was opened or has ended. Names that are not expected are not shown."""
    if (link := _links.get(name)) is not None:
        link.set(up)


_links: dict[str, Gauge] = {}


class _Workers(Collector):
    """The metrics of all worker processes.

    Unlike MultiProcessCollector it leaves out the files that a worker has created and not yet filled.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in self._directory.glob("*.db") if _is_filled(file)]
        return cast("Iterable[Metric]", MultiProcessCollector.merge(files))


def _is_filled(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # the worker has ended
        return False


def exposition() -> bytes:
    """All metrics, of all worker processes, in the text format of CONTENT_TYPE."""
    directory = os.environ.get(DIRECTORY)
    if not directory:
        return generate_latest()
    registry = CollectorRegistry()
    registry.register(_Workers(directory))
    return generate_latest(registry)


def drop_process(pid: int, directory: str) -> None:
    """Drops the gauges of a worker that has ended; its counters stay."""
    mark_process_dead(pid, directory)
