"""`notifier conformance`: scenarios that show the errors of a client of the protocol."""
