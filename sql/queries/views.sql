-- The views of the schema `notifier`, with the comments that `migrate` gave them. `server`: the major
-- version, on which the printed form of a definition depends.
SELECT c.relname::text AS name, pg_catalog.md5(pg_catalog.pg_get_viewdef(c.oid)) AS definition,
       pg_catalog.current_setting('server_version_num')::integer / 10000 AS server,
       pg_catalog.obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = pg_catalog.to_regnamespace('notifier') AND c.relkind = 'v'
