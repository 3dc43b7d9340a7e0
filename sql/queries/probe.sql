-- Whether the path from trigger to node works. $1: a nonce, which comes back by NOTIFY (null: none is sent);
-- $2: how many seconds a change may wait. `epoch`, `seq`: of the last message.
-- `backlog`: how far the relay has come in a backlog; null where it reads none.
WITH place AS (
    SELECT coalesce((SELECT m.cursor FROM notifier.messages AS m
                     WHERE m.seq > log.seq AND m.cursor IS NOT NULL
                     ORDER BY m.seq DESC LIMIT 1), log.cursor)::pg_snapshot AS cursor,
           log.target IS NOT NULL AS busy,
           greatest(log.seq, log.epoch_seq, (SELECT max(m.seq) FROM notifier.messages AS m)) AS seq,
           concat_ws(' ', log.target, log.upto, log.seq) AS reached,
           log.epoch
    FROM notifier.log
), problems AS (
    SELECT * FROM notifier.watch_problems()
)
SELECT pg_is_in_recovery() AS standby,
       pg_notification_queue_usage() AS queue,   -- the call also trims a queue that was full
       EXISTS (
           SELECT FROM notifier.log, notifier.relay_holders(log.relay_lock) AS h
           LEFT JOIN pg_stat_activity AS a ON a.pid = h.pid
           WHERE h.is_ours AND coalesce(a.state_change > clock_timestamp() - interval '12 s', true)
       ) AS relay,
       ARRAY(
           SELECT concat(CASE kind WHEN 'table' THEN 'watched tables are gone: '
                                   WHEN 'column' THEN 'watched columns are gone: '
                                   WHEN 'child' THEN 'tables inherit from watched ones and are not captured: '
                                   WHEN 'trigger' THEN 'triggers are missing or disabled on '
                                   ELSE 'triggers are not needed on ' END,
                         string_agg(DISTINCT object, ', '))
           FROM problems WHERE fatal GROUP BY kind ORDER BY kind
       ) || ARRAY(  -- `check` names the setting: see `replica_settings.sql`
           SELECT 'triggers do not fire in new sessions (session_replication_role = replica)'
           WHERE EXISTS (SELECT FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
                         WHERE p.pronamespace = 'notifier'::regnamespace AND t.tgenabled = 'O')
             AND (EXISTS (SELECT FROM pg_db_role_setting AS s, unnest(s.setconfig) AS setting
                          WHERE s.setrole = 0 AND lower(setting) = 'session_replication_role=replica'
                            AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())))
                  OR EXISTS (SELECT FROM pg_settings AS s
                             WHERE s.name = 'session_replication_role' AND s.reset_val = 'replica'
                               AND s.source IN ('configuration file', 'command line')))
       ) AS problems,
       ARRAY(SELECT DISTINCT concat_ws(' ', kind, object) FROM problems WHERE NOT fatal ORDER BY 1) AS warnings,
       NOT place.busy AND EXISTS (
           SELECT FROM notifier.changes AS c
           WHERE (c.xid >= pg_snapshot_xmax(place.cursor)
                  OR c.xid = ANY (ARRAY(SELECT pg_snapshot_xip(place.cursor))))
             AND c.at < clock_timestamp() - $2::float8 * interval '1 s'
       ) AS waiting,
       -- A transaction that is too large for memory is stored as one: until then, only its reader moves.
       CASE WHEN place.busy THEN concat(place.reached, (
           SELECT max(a.state_change) FROM pg_stat_activity AS a
           WHERE a.datname = current_database() AND a.application_name ~ '^(.*: )?notifier relay reader$'
             AND a.xact_start < clock_timestamp() - interval '20 s'
             -- any role may take that name
             AND has_table_privilege(a.usesysid, 'notifier.log', 'UPDATE')
       )) END AS backlog,
       place.epoch, place.seq,
       CASE WHEN $1::text IS NOT NULL THEN pg_notify('notifier_messages', $1) END
FROM place
