"""The metrics at `GET /metrics`. None has a label for a user, a company or a connection."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SOCKETS = Gauge("notifier_sockets", "Open WebSockets")
SUBSCRIBERS = Gauge("notifier_subscribers", "Sockets that are subscribed to a company")
CHANNELS = Gauge("notifier_channels", "Companies that this node keeps in memory")
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
DELIVERED = Counter("notifier_delivered_messages_total", "Messages written to sockets")
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
LOOP = Histogram(
    "notifier_loop_delay_seconds",
    "How late a timer of the event loop fires, measured every second",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
RELAY = Gauge("notifier_relay", "1 on the node that relays")
AWAKE = Gauge("notifier_relay_awake", "1 while the relay reads without waiting for the doorbell")
RINGS = Counter("notifier_doorbell_rings_total", "Times that the doorbell woke the relay")
FALLBACK_FINDS = Counter(
    "notifier_fallback_finds_total",
    "Changes that the sleeping relay found without the doorbell: each is a fault",
)
RECONNECTS = Counter(
    "notifier_reconnects_total", "Database connections that were lost, by link", ["link"]
)
LOG_BYTES = Gauge("notifier_log_bytes", "Size of changes and messages on disk")
LOG_LIMIT_BYTES = Gauge("notifier_log_limit_bytes", "Limit of notifier_log_bytes: MAX_LOG_BYTES")
READY = Gauge("notifier_ready", "1 while the path from trigger to hub is proven")
QUEUE = Gauge("notifier_notify_queue_usage", "Usage of PostgreSQL's notification queue, 0 to 1")
