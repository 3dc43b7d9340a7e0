"""`notifier why`: explains from the database alone why a change was, or was not, delivered."""
