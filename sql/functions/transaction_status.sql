-- The state of a transaction: `in progress`, `committed`, `aborted`, `finished` where the server no longer knows which
-- of the two, or `future` where its number was not given out yet, for which pg_xact_status raises.
CREATE OR REPLACE FUNCTION notifier.transaction_status(number xid8) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- No transaction has a number with 0, 1 or 2 as its low 32 bits. Beyond the first 2^32 pg_xact_status raises for
    -- none of these, so the number after them decides whether they are in the future.
    IF number::text::numeric >= 4294967296 AND number::text::numeric % 4294967296 < 3 THEN
        PERFORM pg_xact_status((number::text::numeric + 3)::text::xid8);
    END IF;
    RETURN coalesce(pg_xact_status(number), 'finished');
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN 'future';
END
$$;
