-- How a transaction stands: `in progress`, `committed`, `aborted`, `finished` where the server no longer knows which
-- of the two, or `future` where its number was not given out yet, for which pg_xact_status raises.
CREATE OR REPLACE FUNCTION notifier.transaction_status(number xid8) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce(pg_xact_status(number), 'finished');
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN 'future';
END
$$;
