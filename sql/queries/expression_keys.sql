-- Whether the table $1, or a partition of it, is partitioned by an expression.
WITH RECURSIVE part AS (
    SELECT pg_catalog.to_regclass($1)::oid AS relid
    UNION
    SELECT h.inhrelid FROM part JOIN pg_catalog.pg_inherits AS h ON h.inhparent = part.relid
)
SELECT EXISTS (
    SELECT FROM part JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = part.relid WHERE p.partexprs IS NOT NULL
)
