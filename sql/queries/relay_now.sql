-- The session of the node that relays: its process id on the server, and the address that it connects from.
SELECT a.pid, coalesce(host(a.client_addr), 'local') AS address
FROM notifier.log, notifier.relay_holders(log.relay_lock) AS h JOIN pg_stat_activity AS a USING (pid)
WHERE h.is_ours
