-- A node has delivered seq $2 of epoch $1, but the log has not come as far: it was rewound. The relay begins
-- an epoch, because this version of the row is not its own. Returns a row where that is so.
UPDATE notifier.log SET saved_by = '0'
WHERE epoch = $1
  AND greatest(seq, epoch_seq, (SELECT max(messages.seq) FROM notifier.messages)) < $2
RETURNING epoch
