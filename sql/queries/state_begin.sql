-- The beginning of a transaction that reads a state, before its snapshot: the relay must not truncate changes that are
-- unread in it. ROW SHARE, which a role may request that may delete rows, but not read every column.
LOCK TABLE notifier.changes_0, notifier.changes_1 IN ROW SHARE MODE
