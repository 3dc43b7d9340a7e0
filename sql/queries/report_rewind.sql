-- A node has come to seq $2 of epoch $1, and has delivered the message of seq $6, or began at it: position $4 of company $3, changed at $5.
-- If the log ends before $2, or has another message at $6, it was rewound. The relay begins an epoch, because this version
-- of the row is not its own. Returns a row where that is so.
UPDATE notifier.log SET saved_by = '0'
WHERE epoch = $1
  AND (greatest(seq, epoch_seq, (SELECT max(messages.seq) FROM notifier.messages)) < $2
       OR EXISTS (SELECT FROM notifier.messages AS m
                  WHERE m.seq = $6 AND $3::text IS NOT NULL
                    AND (m.company, m.position, m.at) <> ($3::text, $4::bigint, $5::timestamptz)))
RETURNING epoch
