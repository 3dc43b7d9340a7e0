-- Appends messages to slot $1, the first with seq $2, and notifies the nodes. The cursor $9 is stored with
-- the last one, whose seq is $8. $10 is null where no user loses access, $11 where every user gets every message, $12 where none is traced,
-- which is the rule. Returns a row, or stores nothing where the row of notifier.log is not the version that the relay wrote.
WITH ours AS (
    SELECT FROM notifier.log WHERE saved_by::xid = log.xmin
), stored AS (
    INSERT INTO notifier.messages (slot, seq, company, position, at, stored, body, revokes, views, traceparent,
                                   cursor)
    SELECT $1, $2 + m.n - 1, m.company, m.position, m.at, $6, m.body,
           CASE WHEN m.revokes <> '' THEN ARRAY(SELECT json_array_elements_text(m.revokes::json)) END,
           m.views, m.traceparent,
           CASE WHEN $2 + m.n - 1 = $8 THEN $9 END
    FROM ours, unnest($3::text[], $4::bigint[], $5::timestamptz[], $7::json[], $10::text[], $11::json[],
                      $12::text[])
         WITH ORDINALITY AS m (company, position, at, body, revokes, views, traceparent, n)
)
SELECT pg_notify('notifier_messages', $8::bigint::text) FROM ours
