-- The server's clock in unix seconds, its limit of connections for ordinary roles, and how many of them are free.
SELECT extract(epoch FROM clock_timestamp())::float8 AS clock, room.limit,
       greatest(0, room.limit - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')) AS free
FROM (
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) AS limit
) AS room
