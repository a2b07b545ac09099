-- Nobody is forgotten, and nothing but the job's own table is changed, whatever happens between two batches.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA queues;
SET search_path = queues;
-- Takes its time, so that a job is met between two batches.
CREATE FUNCTION slow(id int) RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF id % 50 = 0 THEN
        PERFORM pg_sleep(0.005);
    END IF;
    RETURN id;
END $$;
-- Row 1 cannot be had as long as this session holds the gate.
CREATE FUNCTION gated(id int) RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF id = 1 THEN
        PERFORM pg_advisory_xact_lock_shared(5001);
    END IF;
    RETURN id;
END $$;
CREATE FUNCTION begun(job bigint) RETURNS text LANGUAGE sql AS $$
    SELECT t.until(format('SELECT rows_done > 0 FROM zdm.jobs WHERE job_id = %s', job))
$$;

-- another table takes the name
CREATE TABLE swapped (id int PRIMARY KEY, v int);
INSERT INTO swapped SELECT i, 0 FROM generate_series(1, 20000) i;
CREATE TABLE other (id int PRIMARY KEY, v int);
INSERT INTO other SELECT i, 0 FROM generate_series(1, 20000) i;
SELECT zdm.start_backfill('swapped', 'v = id', 'v <> slow(id)') AS job \gset
SELECT begun(:job);
BEGIN;
ALTER TABLE swapped RENAME TO swapped_old;
ALTER TABLE other RENAME TO swapped;
COMMIT;
SELECT t.outcome(:job);
SELECT count(*) FILTER (WHERE v = id) AS changed FROM swapped_old;
SELECT count(*) FILTER (WHERE v <> 0) AS changed_without_being_asked FROM swapped;

-- the schema gets another name, and a partition leaves
CREATE SCHEMA queues_before;
CREATE TABLE queues_before.parts (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE queues_before.part_1 PARTITION OF queues_before.parts FOR VALUES FROM (0) TO (10000);
CREATE TABLE queues_before.part_2 PARTITION OF queues_before.parts FOR VALUES FROM (10000) TO (20000);
INSERT INTO queues_before.parts SELECT i, 0 FROM generate_series(1, 19999) i;
SELECT zdm.start_backfill('queues_before.parts', 'v = id', 'v <> slow(id)') AS job \gset
SELECT begun(:job);
ALTER SCHEMA queues_before RENAME TO queues_after;
ALTER TABLE queues_after.parts DETACH PARTITION queues_after.part_1;
SELECT count(*) FILTER (WHERE v <> 0) AS before FROM queues_after.part_1 \gset
SELECT t.masked(regexp_replace(t.outcome(:job), '\d+ rows', 'N rows'));
SELECT count(*) FILTER (WHERE v = id) AS changed FROM queues_after.parts;
SELECT count(*) FILTER (WHERE v <> 0) - :before AS changed_after_it_left FROM queues_after.part_1;

-- a job that was being cancelled when its turn came, and then was not
CREATE TABLE first (id int PRIMARY KEY, v int);
INSERT INTO first SELECT i, 0 FROM generate_series(1, 5000) i;
CREATE TABLE second (id int PRIMARY KEY, v int);
INSERT INTO second SELECT i, 0 FROM generate_series(1, 100) i;
SELECT zdm.start_backfill('first', 'v = id', 'v <> slow(id)') AS first \gset
SELECT zdm.start_backfill('second', 'v = id', depends_on => ARRAY[:first]::bigint[]) AS second \gset
BEGIN;
SELECT zdm.cancel(:second);
SELECT t.outcome(:first);
SELECT pg_sleep(0.2);
ROLLBACK;
SELECT t.outcome(:second);

-- the same when the job that it depends on fails: its end is recorded at once, and nobody waits for this transaction
CREATE FUNCTION fails(id int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM queues.slow(id);
    RETURN 1 / (id - 5000);
END $$;
SELECT zdm.start_backfill('first', 'v = fails(id)', 'v > 0') AS first \gset
SELECT zdm.start_backfill('second', 'v = 0', 'v > 0', depends_on => ARRAY[:first]::bigint[]) AS second \gset
BEGIN;
SELECT zdm.cancel(:second);
SELECT regexp_replace(t.outcome(:first), '\d+ rows', 'N rows');
ROLLBACK;
SELECT t.outcome(:second);

-- two jobs back off; one goes on and works for long, and the other one is woken all the same
CREATE TABLE full_disk (k text);
INSERT INTO full_disk VALUES ('quick'), ('long');
CREATE FUNCTION needs_room() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM queues.full_disk WHERE k = tg_argv[0]) THEN
        RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full';
    END IF;
    RETURN NEW;
END $$;
CREATE TABLE quick (id int PRIMARY KEY, v int);
INSERT INTO quick SELECT i, 0 FROM generate_series(1, 10) i;
CREATE TABLE long (id int PRIMARY KEY, v int);
INSERT INTO long SELECT i, 0 FROM generate_series(1, 10) i;
CREATE TRIGGER room BEFORE UPDATE ON quick FOR EACH ROW EXECUTE FUNCTION needs_room('quick');
CREATE TRIGGER room BEFORE UPDATE ON long FOR EACH ROW EXECUTE FUNCTION needs_room('long');
SELECT zdm.start_backfill('quick', 'v = id') AS quick \gset
SELECT t.until(format('SELECT attempts >= 3 AND state = ''queued'' FROM zdm.jobs WHERE job_id = %s', :quick));
SELECT pg_advisory_lock(5001);
SELECT zdm.start_backfill('long', 'v = gated(id)', 'v <> id') AS long \gset
SELECT t.until(format('SELECT attempts >= 1 AND state = ''queued'' FROM zdm.jobs WHERE job_id = %s', :long));
TRUNCATE full_disk;
SELECT t.until(format('SELECT state = ''running'' FROM zdm.jobs WHERE job_id = %s', :long));
SELECT t.outcome(:quick);
SELECT state FROM zdm.jobs WHERE job_id = :long;
SELECT pg_advisory_unlock(5001);
SELECT t.outcome(:long);

-- a condition that raises a cancel in the last look: no hurry, and the reason is said
CREATE FUNCTION stops(id int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF id = 0 THEN
        RAISE EXCEPTION 'not now' USING ERRCODE = 'query_canceled';
    END IF;
    RETURN true;
END $$;
CREATE TABLE looked (id int PRIMARY KEY, v int);
INSERT INTO looked SELECT i, 0 FROM generate_series(1, 10) i;
SELECT pg_advisory_lock(5001);
SELECT zdm.start_backfill('looked', 'v = gated(id)', 'v <> id AND stops(id)') AS job \gset
SELECT t.until(format('SELECT phase = ''last look'' FROM zdm.jobs WHERE job_id = %s', :job));
INSERT INTO looked VALUES (0, 1);
SELECT pg_advisory_unlock(5001);
SELECT t.until(format('SELECT waiting_for = ''cancelled: not now'' FROM zdm.jobs WHERE job_id = %s', :job));
DELETE FROM looked WHERE id = 0;
SELECT t.outcome(:job);

-- row-level security switched on during the last look must not pass for a table where nothing is left
CREATE ROLE regress_zdm_looker;
GRANT USAGE ON SCHEMA queues, zdm TO regress_zdm_looker;
GRANT USAGE ON SCHEMA t TO regress_zdm_looker;
CREATE TABLE hidden (id int PRIMARY KEY, v int);
INSERT INTO hidden SELECT i, 0 FROM generate_series(1, 10) i;
GRANT ALL ON hidden TO regress_zdm_looker;
SELECT pg_advisory_lock(5001);
SET ROLE regress_zdm_looker;
SELECT zdm.start_backfill('hidden', 'v = gated(id)', 'v <> id') AS job \gset
RESET ROLE;
SELECT t.until(format('SELECT phase = ''last look'' FROM zdm.jobs WHERE job_id = %s', :job));
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
SELECT pg_advisory_unlock(5001);
SELECT t.outcome(:job);
SELECT count(*) AS still_to_do FROM hidden WHERE v <> id;

-- array_nulls of the calling session does not make a condition of the one that was left out
SET array_nulls = off;
CREATE TABLE nulls (id int PRIMARY KEY, v int);
INSERT INTO nulls SELECT i, 0 FROM generate_series(1, 10) i;
CALL t.backfill('queues.nulls', 'v = id', NULL);
RESET array_nulls;

SET client_min_messages = error;
DROP SCHEMA queues, queues_after CASCADE;
DROP OWNED BY regress_zdm_looker;
DROP ROLE regress_zdm_looker;
