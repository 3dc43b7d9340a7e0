"""`notifier conformance`: scenarios that show what a client of the protocol gets wrong."""
