"""Types of an application's own messages, for its language: `notifier types`."""
