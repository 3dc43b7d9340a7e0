-- The company, as JSON, that a row led to which this transaction has deleted (notifier.vanished). Null: there was no such
-- row, and none is `enforced`. Fails where one is, and where `enforced` is null: its company cannot be determined.
CREATE OR REPLACE FUNCTION notifier.vanished_company(watch text, step integer, key text, enforced boolean) RETURNS json
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    company json;
BEGIN
    SELECT v.company INTO company FROM notifier.vanished AS v
    WHERE v.xid = pg_current_xact_id() AND v.key = vanished_company.key
      AND v.watch = vanished_company.watch AND v.step = vanished_company.step
      AND v.since = transaction_timestamp();
    IF company IS NULL AND enforced IS NOT FALSE THEN
        RAISE no_data_found;
    END IF;
    RETURN company;
END
$$;
