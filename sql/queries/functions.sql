-- The functions of the schema `notifier` as they are in the database.
SELECT p.proname::text AS name, pg_catalog.pg_get_userbyid(p.proowner)::text AS owner,
       pg_catalog.pg_get_function_arguments(p.oid) AS arguments,
       pg_catalog.pg_get_function_result(p.oid) AS result,
       l.lanname::text AS language,
       CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END AS volatility,
       p.proisstrict AS is_strict,
       p.prosecdef AS security_definer,
       p.proleakproof OR p.proparallel <> 'u' OR p.prosqlbody IS NOT NULL OR p.prokind <> 'f' AS unusual,
       coalesce(p.proconfig, '{}') AS settings,
       p.prosrc AS body,
       coalesce(pg_catalog.obj_description(p.oid, 'pg_proc') = $1, false) AS managed
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
WHERE p.pronamespace = pg_catalog.to_regnamespace('notifier')
ORDER BY p.proname, arguments
