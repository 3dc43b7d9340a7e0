"""HTTP pages beside the WebSocket: status, health, metrics, the protocol's description."""
