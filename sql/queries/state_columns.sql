-- The present names of the columns $2 of the relation $1, and null for one that is gone. PostgreSQL's caches have them, also where the
-- transaction's snapshot is older than an ALTER TABLE.
SELECT ARRAY(
    SELECT (pg_catalog.pg_identify_object_as_address('pg_catalog.pg_class'::pg_catalog.regclass, $1::pg_catalog.oid, n.number)).object_names[3]
    FROM pg_catalog.unnest($2::int[]) WITH ORDINALITY AS n (number, place)
    ORDER BY n.place
)
