"""Transports: where a connection's bytes meet a session."""
