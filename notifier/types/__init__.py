"""`notifier types`: generates types for the messages of an application's own tables."""
