-- Begins an epoch: the log cannot prove that it continues the old one. Every known company has a Resync as
-- its first message. $1: its reason; $2: the last seq.
--
-- Changes that are visible although the snapshot does not see their transaction were captured by another
-- cluster, and came by a dump or by replication. They would count as unread until this cluster's
-- transaction ids have passed them.
WITH next AS (
    UPDATE notifier.log
    SET epoch = substr(md5(gen_random_uuid()::text), 1, 12), epoch_seq = $2, system = notifier.system(),
        cursor = pg_current_snapshot()::text, target = NULL, upto = NULL,
        captured = NULL, slot = 0, slot_since = clock_timestamp(), unsettled = $3::bigint::text::xid8,
        seq = $2 + (SELECT count(*) FROM notifier.positions), saved_by = pg_current_xact_id()
    RETURNING *
), foreign_0 AS (
    DELETE FROM notifier.changes_0
    WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
       OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot())))
), foreign_1 AS (
    DELETE FROM notifier.changes_1
    WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
       OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot())))
), numbered AS (
    UPDATE notifier.positions SET position = 1 RETURNING company
), stored AS (
    INSERT INTO notifier.messages (slot, seq, company, position, at, body, revokes)
    SELECT 0, $2 + row_number() OVER (ORDER BY company), company, 1, moment.at,
           format('{"Type":"Resync","Data":{"CompanyId":%s,"Reason":%s,"Epoch":%s},"Position":1,"At":%s}',
                  to_json(company), to_json($1::text), to_json(next.epoch),
                  to_json(to_char(moment.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')))::json,
           ARRAY['*']
    FROM numbered, next, (SELECT clock_timestamp() AS at) AS moment  -- one time for both: it proves the message
)
SELECT epoch, epoch_seq, seq, cursor, pg_notify('notifier_messages', seq::text) FROM next
