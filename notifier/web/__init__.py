"""HTTP pages beside the WebSocket: status, health, metrics, the description of the protocol."""
