-- The log's epoch and last seq.
SELECT epoch, greatest(seq, epoch_seq, (SELECT max(seq) FROM notifier.messages)) AS seq FROM notifier.log
