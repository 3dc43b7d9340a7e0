-- The beginning of a transaction that reads a state, before its snapshot: the relay must not truncate changes that are
-- unread in it.
LOCK TABLE notifier.changes_0, notifier.changes_1 IN ACCESS SHARE MODE
