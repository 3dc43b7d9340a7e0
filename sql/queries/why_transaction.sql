-- Transaction $1: its state, the session that runs it, and the name that PREPARE TRANSACTION has given it.
SELECT CASE WHEN $1::bigint::text::xid8 >= pg_snapshot_xmax(pg_current_snapshot()) THEN
                CASE notifier.transaction_status($1::bigint::text::xid8) WHEN 'future' THEN 'future' ELSE 'in progress' END
            ELSE notifier.transaction_status($1::bigint::text::xid8) END AS status,
       session.pid, session.xact_start AS since, prepared.gid
FROM (VALUES (true)) AS always
LEFT JOIN pg_stat_activity AS session ON session.backend_xid = ($1::bigint::text::xid8)::xid
LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = ($1::bigint::text::xid8)::xid
LIMIT 1
