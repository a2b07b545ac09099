-- backfill: rows changed in batches.

CREATE FUNCTION zdm.start_backfill(
    relation regclass, set_clause text, where_clause text DEFAULT NULL, name text DEFAULT NULL,
    workers integer DEFAULT NULL, batch_time interval DEFAULT NULL, max_replica_lag interval DEFAULT NULL,
    max_wal_rate text DEFAULT NULL, max_rows_per_second bigint DEFAULT NULL, throttle_query text DEFAULT NULL,
    time_window text DEFAULT NULL, vacuum boolean DEFAULT NULL, on_error text DEFAULT NULL,
    depends_on bigint[] DEFAULT NULL, paused boolean DEFAULT false)
RETURNS bigint LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_start_backfill';
COMMENT ON FUNCTION zdm.start_backfill(regclass, text, text, text, integer, interval, interval, text, bigint, text, text, boolean, text, bigint[], boolean) IS
'Changes rows in batches in the background, each exactly once: SELECT zdm.start_backfill(''users'', ''username = user_name''). where_clause: the rows that still need it, default "any assigned column differs from its expression". Starts when the transaction commits; returns the job id. Takes RowExclusiveLock a batch and row locks for at most batch_time. Follow it in zdm.progress; stop it with zdm.pause or zdm.cancel.';
