-- A batch and CREATE INDEX CONCURRENTLY: the index waits for the batch's snapshot. Otherwise a query of the batch's own could read
-- through an index that lacks the row version it should see, and write a wrong value.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA indexes;
SET search_path = indexes;
CREATE TABLE looked_up (k int, v int);
INSERT INTO looked_up SELECT g, g FROM generate_series(1, 100000) g;
CREATE TABLE target (id int PRIMARY KEY, k int, v int);
INSERT INTO target VALUES (1, 100000, 0), (2, 100000, 0);
CREATE FUNCTION looking(id int, key int) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE found_v int;
BEGIN
    IF id = 1 THEN
        PERFORM pg_sleep(2);
    END IF;
    SELECT v INTO found_v FROM looked_up WHERE k = key;
    RETURN coalesce(found_v, -1);
END $$;
SELECT zdm.start_backfill('target', 'v = looking(id, k)', 'v = 0', name => 'looking', batch_time => '60 s') > 0;
-- until the batch is in its first row
DO $$
DECLARE until timestamptz := clock_timestamp() + interval '60 s';
BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'zdm_ext runner' AND wait_event = 'PgSleep'
                      AND datname = current_database()) AND clock_timestamp() < until LOOP
        PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
    END LOOP;
END $$;
DELETE FROM looked_up WHERE k = 100000;
INSERT INTO looked_up VALUES (100000, 8);
CREATE INDEX CONCURRENTLY looked_up_k ON looked_up (k);
SELECT t.job('looking') AS job \gset
CALL zdm.wait(:job, timeout => '60 s');
SELECT id, v IN (100000, 8) AS seen_by_some_snapshot FROM target ORDER BY id;
RESET search_path;
DROP SCHEMA indexes CASCADE;
