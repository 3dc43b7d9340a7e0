-- How many rows of each company one large transaction touched. Companies are returned as JSON: `->>` would
-- fail at an escape anywhere in the row that text cannot represent.
-- A company of a scope is `name:` and its JSON. `bytes`: of the largest change of each row, which is what is held in memory.
SELECT company, count(*) AS rows, max(at) AS at, sum(size)::bigint AS bytes
FROM (
    SELECT scope || side.company AS company, entity, side.key, max(at) AS at, max(size) AS size
    FROM (
        SELECT entity, at, size, scope, CASE WHEN old IS NOT NULL THEN coalesce(to_json(tenant), old -> company) END::text AS was,
               (old -> key)::text || CASE WHEN more_keys = '{}' THEN '' ELSE (
                   SELECT string_agg(',' || (old -> name)::text, '' ORDER BY n) FROM unnest(more_keys) WITH ORDINALITY AS m (name, n)) END AS old_key,
               CASE WHEN new IS NOT NULL THEN coalesce(to_json(tenant), new -> company) END::text AS became,
               (new -> key)::text || CASE WHEN more_keys = '{}' THEN '' ELSE (
                   SELECT string_agg(',' || (new -> name)::text, '' ORDER BY n) FROM unnest(more_keys) WITH ORDINALITY AS m (name, n)) END AS new_key
        FROM (
            SELECT entity, at, size, scope, company, tenant, key, more_keys,
                   CASE WHEN coalesce((old -> deleted_if)::text, 'null') IN ('null', 'false') THEN old END AS old,
                   CASE WHEN coalesce((new -> deleted_if)::text, 'null') IN ('null', 'false') THEN new END AS new
            FROM (
                SELECT w.entity, c.at, c.size, coalesce(w.scope || ':', '') AS scope, w.company, w.tenant, w.key, w.more_keys, w.deleted_if,
                       notifier.readable_json(c.old) AS old, notifier.readable_json(c.new) AS new
                FROM notifier.changes AS c
                JOIN notifier.watches AS w ON w.captured_as = c.entity
                WHERE c.xid = $1::bigint::text::xid8
                OFFSET 0  -- a subquery with OFFSET is computed only once per row
            ) AS change
        ) AS change
        OFFSET 0
    ) AS change
    CROSS JOIN LATERAL unnest(ARRAY[was, became], ARRAY[old_key, new_key]) AS side (company, key)
    WHERE side.company <> 'null' AND octet_length(side.company) <= 5000  -- a longer one is no company's id
    GROUP BY scope || side.company, entity, side.key
) AS touched
GROUP BY company
ORDER BY company
