"""NATS: a faster path for stored messages beside PostgreSQL; docs/nats.md describes subjects and payloads."""
