-- Whether the slot of messages $1 (a table) is larger than $2 bytes, or holds messages and was begun at $3,
-- more than $4 hours ago.
SELECT pg_total_relation_size($1::regclass) > $2::bigint
       OR (pg_relation_size($1::regclass) > 0
           AND clock_timestamp() > $3::timestamptz + $4::float8 * interval '1 hour')
