-- Bytes of changes and messages together, and their limit.
SELECT notifier.log_bytes() AS bytes, max_log_bytes FROM notifier.configuration
