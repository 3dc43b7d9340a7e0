-- Appends messages, the first as seq $2, to slot $1 and tells the nodes. The cursor $9 goes with the last
-- of them, $8. Of what hardly ever is, arrays are left out: $10 is null where nobody loses access.
WITH stored AS (
    INSERT INTO notifier.messages (slot, seq, company, position, at, stored, body, revokes, cursor)
    SELECT $1, $2 + m.n - 1, m.company, m.position, m.at, $6, m.body,
           CASE WHEN m.revokes <> '' THEN ARRAY(SELECT json_array_elements_text(m.revokes::json)) END,
           CASE WHEN $2 + m.n - 1 = $8 THEN $9 END
    FROM unnest($3::text[], $4::bigint[], $5::timestamptz[], $7::json[], $10::text[])
         WITH ORDINALITY AS m (company, position, at, body, revokes, n)
)
SELECT pg_notify('notifier_messages', $8::bigint::text)
