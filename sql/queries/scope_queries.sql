-- The scopes on which a query of the operator's decides.
SELECT s.name, s.membership FROM notifier.scopes AS s WHERE s.membership IS NOT NULL ORDER BY s.name
