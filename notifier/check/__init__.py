"""`notifier check`: checks every link from trigger to client, and names a remedy for what is broken."""
