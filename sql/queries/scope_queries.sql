-- The scopes whose access an operator's query decides.
SELECT s.name, s.membership FROM notifier.scopes AS s WHERE s.membership IS NOT NULL ORDER BY s.name
