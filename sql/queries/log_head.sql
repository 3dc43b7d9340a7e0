-- The log's epoch and last seq, and which message that is; nulls where the log does not have it any more.
SELECT log.epoch, place.seq, m.company, m.position, m.at
FROM notifier.log
CROSS JOIN LATERAL (
    SELECT greatest(log.seq, log.epoch_seq, (SELECT max(messages.seq) FROM notifier.messages)) AS seq
) AS place
LEFT JOIN notifier.messages AS m ON m.seq = place.seq
