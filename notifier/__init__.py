"""Committed changes in PostgreSQL, told to the WebSocket clients of their company."""

__version__ = "0.1.0"
