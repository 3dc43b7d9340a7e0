-- Appends messages and notifies the nodes. Returns a row, or stores nothing if the row of notifier.log is not a version
-- that a relay wrote, or has another epoch than $13.
--
-- $1 slot, $2 seq of the first message, $3 companies, $4 positions, $5 times of the changes, $6 time of storing, $7
-- texts, $8 seq of the last message, $9 cursor, stored with the last message. Mostly null: $10 users who may lose
-- access, as a JSON array each, $11 views, $12 traceparents.
WITH ours AS (
    SELECT FROM notifier.log WHERE saved_by::xid = log.xmin AND epoch = $13
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
