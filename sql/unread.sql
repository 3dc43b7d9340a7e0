-- Whether a table of changes holds one that the snapshot $1 does not see.
SELECT EXISTS (SELECT FROM notifier.changes_0 WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot))
    OR EXISTS (SELECT FROM notifier.changes_0
               WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot))))
