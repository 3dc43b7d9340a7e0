"""Access: who a token identifies, and which companies that user may see now."""
