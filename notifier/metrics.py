"""What an operator can watch: `GET /metrics`. Nothing is labelled by user, company or connection."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SOCKETS = Gauge("notifier_sockets", "Open WebSockets")
SUBSCRIBERS = Gauge("notifier_subscribers", "Sockets that follow a company")
CHANNELS = Gauge("notifier_channels", "Companies that this node keeps in memory")
CHANGES = Counter("notifier_changes_total", "Changes that the relay has read")
MESSAGES = Counter("notifier_messages_total", "Messages that the relay has stored")
BATCHES = Counter("notifier_batches_total", "Batches that the relay has stored")
BROKEN = Counter("notifier_broken_changes_total", "Changes that no company could be found for")
PARTIAL = Counter(
    "notifier_partial_messages_total", "Messages with keys only: too large, or no text for JSON"
)
RECEIVED = Counter(
    "notifier_received_messages_total", "Messages that this node took from the stream"
)
DELIVERED = Counter("notifier_delivered_messages_total", "Messages written to sockets")
REPLAYED = Counter("notifier_replayed_messages_total", "Messages written to resuming sockets")
RESYNCS = Counter("notifier_resyncs_total", "Companies told to read afresh", ["reason"])
RESUMES = Counter("notifier_resumes_total", "Resumes, by whether they were complete", ["recovered"])
REVOKED = Counter("notifier_revoked_total", "Subscriptions that ended with the user's access")
REFUSED = Counter("notifier_refused_total", "Companies that were refused")
CLOSED = Counter("notifier_closed_total", "Sockets that we closed", ["code"])
LAG = Histogram(
    "notifier_lag_seconds",
    "From the change to its being written to sockets",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
LOOP = Histogram(
    "notifier_loop_delay_seconds",
    "How long the event loop kept a timer waiting, looked at every second",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
RELAY = Gauge("notifier_relay", "1 on the node that relays")
AWAKE = Gauge("notifier_relay_awake", "1 while the relay reads without waiting for the doorbell")
RINGS = Counter("notifier_doorbell_rings_total", "Times that the doorbell woke the relay")
FALLBACK_FINDS = Counter(
    "notifier_fallback_finds_total", "Changes that the sleeping relay found without a ring: faults"
)
RECONNECTS = Counter("notifier_reconnects_total", "Links to the database that were lost", ["link"])
LOG_BYTES = Gauge("notifier_log_bytes", "Changes and messages on disk")
LOG_LIMIT_BYTES = Gauge("notifier_log_limit_bytes", "What they may take: MAX_LOG_BYTES")
READY = Gauge("notifier_ready", "1 while the path from trigger to hub is proven")
QUEUE = Gauge("notifier_notify_queue_usage", "How full PostgreSQL's notification queue is, 0 to 1")
