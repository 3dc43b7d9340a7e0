-- One row of a watched table: the values that decide on its company, and the transactions that wrote it and that change
-- or lock it now. Values are returned as text, and none is printed. The words in braces are replaced.
SELECT {company} AS company, {deleted} AS deleted, row.xmin::text::bigint AS written_by, row.xmax::text::bigint AS held_by,
       pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint AS next
FROM {relation} AS row
WHERE {condition}
LIMIT 1
