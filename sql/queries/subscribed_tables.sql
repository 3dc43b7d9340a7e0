-- The watched tables that subscriptions write to, and our triggers on them that do not fire for that.
SELECT s.subname::text AS subscription, w.relation, pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(t.tgname), ', ') AS triggers
FROM pg_catalog.pg_subscription_rel AS r
JOIN pg_catalog.pg_subscription AS s ON s.oid = r.srsubid
JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.srrelid AND t.tgenabled = 'O' AND NOT t.tgisinternal
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid AND p.pronamespace = 'notifier'::pg_catalog.regnamespace
CROSS JOIN LATERAL (SELECT r.srrelid::pg_catalog.regclass::text AS relation) AS w
GROUP BY subscription, w.relation
ORDER BY w.relation, subscription
