-- A new epoch: the log cannot prove that it is the continuation of the old one. Every company that the
-- log knows hears of it by the first message of the new epoch. $1: the reason.
WITH next AS (
    UPDATE notifier.log
    SET epoch = substr(md5(gen_random_uuid()::text), 1, 12), epoch_seq = $2, system = notifier.system(),
        cursor = pg_current_snapshot()::text, target = NULL, upto = NULL,
        slot = 0, slot_since = clock_timestamp(),
        seq = $2 + (SELECT count(*) FROM notifier.positions)
    RETURNING *
), numbered AS (
    UPDATE notifier.positions SET position = 1 RETURNING company
), stored AS (
    INSERT INTO notifier.messages (slot, seq, company, position, at, body, revokes)
    SELECT 0, $2 + row_number() OVER (ORDER BY company), company, 1, clock_timestamp(),
           format('{"Type":"Resync","Data":{"CompanyId":%s,"Reason":%s,"Epoch":%s},"Position":1,"At":%s}',
                  to_json(company), to_json($1::text), to_json(next.epoch),
                  to_json(clock_timestamp()))::json,
           ARRAY['*']
    FROM numbered, next
)
SELECT epoch, epoch_seq, seq, cursor, pg_notify('notifier_messages', seq::text) FROM next
