"""`notifier check`: every link from trigger to client, and what to do about one that is broken."""
