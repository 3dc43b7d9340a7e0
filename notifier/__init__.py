"""Sends committed changes of PostgreSQL rows to the WebSocket clients of their company."""

__version__ = "0.1.0"
