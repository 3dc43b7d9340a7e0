-- Appends messages to slot $1 and tells the nodes. The cursor $9 goes with the last of them.
WITH stored AS (
    INSERT INTO notifier.messages (slot, seq, company, position, at, stored, body, revokes, cursor)
    SELECT $1, m.seq, m.company, m.position, m.at, $6, m.body,
           CASE WHEN m.revokes <> '' THEN ARRAY(SELECT json_array_elements_text(m.revokes::json)) END,
           CASE WHEN m.seq = $8 THEN $9 END
    FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::timestamptz[], $7::json[], $10::text[])
         AS m (seq, company, position, at, body, revokes)
)
SELECT pg_notify('notifier_messages', $8::bigint::text)
