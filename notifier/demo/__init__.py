"""`notifier demo`: an embedded PostgreSQL, a sample company, a live page."""
