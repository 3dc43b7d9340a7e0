"""Transports: they carry a session over a connection."""
