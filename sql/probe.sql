-- Is the path sound? $1: what is to come back by NOTIFY; $2: how many seconds a change may wait.
WITH place AS (
    SELECT coalesce((SELECT m.cursor FROM notifier.messages AS m
                     WHERE m.seq > log.seq AND m.cursor IS NOT NULL
                     ORDER BY m.seq DESC LIMIT 1), log.cursor)::pg_snapshot AS cursor,
           log.target IS NOT NULL AS busy
    FROM notifier.log
)
SELECT pg_is_in_recovery() AS standby,
       pg_notification_queue_usage() AS queue,   -- looking also empties a queue that was full once
       EXISTS (
           SELECT FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
           WHERE l.locktype = 'advisory' AND l.classid = 7815279000 >> 32
             AND l.objid = 7815279000 & 4294967295 AND l.objsubid = 1 AND l.granted
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND coalesce(a.state_change > clock_timestamp() - interval '12 s', true)
       ) AS relay,
       ARRAY(
           SELECT w.relation FROM notifier.watches AS w
           WHERE 3 > (SELECT count(*) FROM pg_trigger AS t
                      WHERE t.tgrelid = to_regclass(w.relation) AND t.tgenabled IN ('O', 'A')
                        AND t.tgfoid = 'notifier.capture'::regproc AND t.tgparentid = 0)
       ) AS uncaptured,
       NOT place.busy AND EXISTS (
           SELECT FROM notifier.changes AS c
           WHERE (c.xid >= pg_snapshot_xmax(place.cursor)
                  OR c.xid = ANY (ARRAY(SELECT pg_snapshot_xip(place.cursor))))
             AND c.at < clock_timestamp() - $2::float8 * interval '1 s'
       ) AS waiting,
       pg_notify('notifier_messages', $1)
FROM place
