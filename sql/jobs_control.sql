-- Control calls in every state, and what they do.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA control;
SET search_path = control;
CREATE TABLE work (id int PRIMARY KEY, a int, v int, writes int NOT NULL DEFAULT 0);
INSERT INTO work SELECT i, i FROM generate_series(1, 1000) i;
CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.writes := OLD.writes + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER count_writes BEFORE UPDATE OF v ON work FOR EACH ROW WHEN (NEW.v IS NOT NULL) EXECUTE FUNCTION count_writes();
CREATE TABLE other (id int PRIMARY KEY, v int);
INSERT INTO other VALUES (1), (2), (3);
-- Row 500 cannot be had as long as this session holds the gate.
CREATE FUNCTION gated(id int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF id = 500 THEN
        PERFORM pg_advisory_xact_lock_shared(5000);
    END IF;
    RETURN id;
END $$;

CREATE FUNCTION answers(name text) RETURNS TABLE (call text, answer text) LANGUAGE sql AS $$
    SELECT call, t.answer(format(CASE call WHEN 'alter_job' THEN 'SELECT zdm.alter_job(%s, batch_time => ''50 ms'')'
                                 WHEN 'require' THEN 'SELECT zdm.require(%2$L)'
                                 ELSE 'SELECT zdm.' || call || '(%s)' END, t.job($1), $1))
    FROM unnest('{pause,resume,cancel,retry,alter_job,require}'::text[]) call
$$;

-- a job in every state
SELECT zdm.start_backfill('other', 'v = 1', name => 'succeeded') > 0;
SELECT t.outcome('succeeded');
SELECT zdm.start_backfill('other', 'v = 100 / (id - 2)', 'v = 1', name => 'failed') > 0;
SELECT t.outcome('failed');
SELECT zdm.start_backfill('other', 'v = 2', name => 'paused', paused => true) > 0;
SELECT zdm.start_backfill('other', 'v = 3', name => 'queued', depends_on => ARRAY[t.job('paused')]) > 0;
SELECT zdm.start_backfill('other', 'v = 4', name => 'cancelled', paused => true) > 0;
SELECT zdm.cancel(t.job('cancelled'));
SELECT pg_advisory_lock(5000);
SELECT zdm.start_backfill('work', 'v = gated(a)', 'v IS NULL', name => 'running') > 0;
SELECT t.outcome('running', '{running}') ~ '^running';
-- ... and says what it waits for: not at once, its first tries are for whole batches
SELECT t.until($$SELECT waiting_for ~ '^row \(.*\) of control.work: .*lock timeout' AND rows_done = 999 FROM zdm.jobs WHERE name = 'running'$$);
SELECT name, state, CASE state WHEN 'queued' THEN t.masked(waiting_for) END, workers, cardinality(pids) FROM zdm.jobs WHERE job_id > :before ORDER BY job_id;
SELECT * FROM answers('queued');
BEGIN;
SELECT * FROM answers('running');
ROLLBACK;
SELECT * FROM answers('paused');
SELECT * FROM answers('succeeded');
SELECT * FROM answers('failed');
SELECT * FROM answers('cancelled');
-- nothing of it happened
SELECT name, state FROM zdm.jobs WHERE job_id > :before ORDER BY job_id;

-- wrong calls
SELECT t.refused('SELECT zdm.pause(0)');
SELECT t.refused('SELECT zdm.resume(-1)');
SELECT t.refused('SELECT zdm.cancel(9223372036854775807)');
SELECT t.refused('SELECT zdm.retry(0)');
SELECT t.refused('SELECT zdm.alter_job(0)');
SELECT t.refused('SELECT zdm.pause(NULL)');
SELECT t.refused('SELECT zdm.resume(NULL)');
SELECT t.refused('SELECT zdm.cancel(NULL)');
SELECT t.refused('SELECT zdm.retry(NULL)');
SELECT t.refused('SELECT zdm.alter_job(NULL, batch_time => ''1 s'')');
SELECT t.refused('SELECT zdm.require(NULL)');
SELECT t.refused('SELECT zdm.require(''no such job'')');
SELECT t.refused('SELECT zdm.require(''failed'')');
SELECT t.refused('SELECT zdm.require(''paused'')');
SELECT t.refused('SELECT zdm.require(''cancelled'')');
SELECT t.refused('SELECT zdm.require('''')');
SELECT t.refused('SELECT zdm.pause(t.job(''succeeded''))');
SELECT t.refused('SELECT zdm.resume(t.job(''cancelled''))');
SELECT t.refused('SELECT zdm.retry(t.job(''paused''))');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), workers => 0)');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), workers => 3)');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), batch_time => ''0'')');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), batch_time => ''1 month'')');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), max_wal_rate => ''lots'')');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), max_rows_per_second => 5)');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), throttle_query => ''SELECT 1'')');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), vacuum => true)');
SELECT t.refused('SELECT zdm.alter_job(t.job(''paused''), on_error => ''stop'')');
SELECT zdm.require('succeeded');

-- zdm.wait, refused
\set VERBOSITY sqlstate
CALL zdm.wait(NULL);
SELECT :'LAST_ERROR_MESSAGE';
CALL zdm.wait(0);
SELECT t.masked(:'LAST_ERROR_MESSAGE');
SELECT t.job('paused') AS paused, t.job('succeeded') AS succeeded, t.job('failed') AS failed, t.job('cancelled') AS cancelled \gset
CALL zdm.wait(:paused, timeout => '-1 s');
SELECT :'LAST_ERROR_MESSAGE';
CALL zdm.wait(:paused, timeout => '1 month');
SELECT :'LAST_ERROR_MESSAGE';
CALL zdm.wait(:paused, timeout => '0');
SELECT t.masked(:'LAST_ERROR_MESSAGE');
CALL zdm.wait(:paused, timeout => '20 ms');
CALL zdm.wait(:failed);
SELECT :'LAST_ERROR_MESSAGE';
CALL zdm.wait(:cancelled);
SELECT t.masked(:'LAST_ERROR_MESSAGE');
CALL zdm.wait(:succeeded);
-- where it would wait for itself
BEGIN;
SELECT zdm.start_backfill('other', 'v = 9') AS mine \gset
CALL zdm.wait(:mine);
ROLLBACK;
SELECT t.masked(:'LAST_ERROR_MESSAGE');
BEGIN;
UPDATE other SET v = v WHERE false;
CREATE TEMP TABLE written (id int);
CALL zdm.wait(:paused);
ROLLBACK;
SELECT t.masked(:'LAST_ERROR_MESSAGE');
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL zdm.wait(:paused);
ROLLBACK;
SELECT t.masked(:'LAST_ERROR_MESSAGE');
BEGIN ISOLATION LEVEL SERIALIZABLE;
CALL zdm.wait(:paused);
ROLLBACK;
BEGIN;
SELECT count(*) FROM other;
CALL zdm.wait(:paused);
ROLLBACK;
SELECT t.masked(:'LAST_ERROR_MESSAGE');
BEGIN;
DECLARE c CURSOR FOR SELECT 1;
CALL zdm.wait(:paused);
ROLLBACK;
SELECT t.masked(:'LAST_ERROR_MESSAGE');
CREATE FUNCTION waits(job bigint) RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL zdm.wait(job); END';
SELECT waits(:paused);
SELECT t.masked(:'LAST_ERROR_MESSAGE');
SELECT waits(:paused) FROM other;
-- where it would not
BEGIN;
CALL zdm.wait(:paused, timeout => '0');
ROLLBACK;
BEGIN;
SELECT count(*) FROM work;
CALL zdm.wait(:succeeded, timeout => '0');
ROLLBACK;
BEGIN;
CALL zdm.wait(:succeeded);
CALL zdm.wait(:succeeded);
SELECT zdm.require('succeeded');
COMMIT;
DO $$ BEGIN CALL zdm.wait(t.job('succeeded')); END $$;
CREATE PROCEDURE waits_too(job bigint) LANGUAGE plpgsql AS 'BEGIN CALL zdm.wait(job, timeout => ''60 s''); END';
CALL waits_too(:succeeded);
\set VERBOSITY default

-- pause takes a running job down at once; it keeps its place
SELECT zdm.pause(t.job('running'));
SELECT t.outcome('running', '{paused}') ~ '^paused';
SELECT state, workers, pids, waiting_for, progress < 100, finished_at FROM zdm.jobs WHERE name = 'running';
SELECT count(*) AS done, count(*) = (SELECT rows_done FROM zdm.jobs WHERE name = 'running') AS exact FROM work WHERE v IS NOT NULL \gset
SELECT :done > 0, :'exact';
SELECT zdm.pause(t.job('running'));
-- paused, it gave its turn away
SELECT zdm.start_backfill('work', 'a = id', 'a <> id', name => 'in between') > 0;
SELECT t.outcome('in between');
-- while it runs, a job on the same table takes its turn after it
SELECT zdm.resume(t.job('running'));
SELECT t.outcome('running', '{running}') ~ '^running';
SELECT zdm.start_backfill('work', 'a = id', 'a <> id', name => 'next') > 0;
SELECT state, waiting_for = 'job ' || t.job('running') FROM zdm.jobs WHERE name = 'next';
-- cancel, a second time, and retry: from its cursor, nothing twice
SELECT zdm.cancel(t.job('running'));
SELECT zdm.cancel(t.job('running'));
SELECT t.outcome('running') ~ '^cancelled';
SELECT t.outcome('next');
SELECT last_error, finished_at IS NOT NULL, progress < 100, workers FROM zdm.jobs WHERE name = 'running';
SELECT pg_advisory_unlock(5000);
SELECT zdm.retry(t.job('running'));
SELECT t.outcome('running');
SELECT count(*) FILTER (WHERE v = id AND writes = 1) FROM work;
SELECT event, count(*) FROM zdm.job_log WHERE job_id = t.job('running') AND event <> 'started' GROUP BY 1 ORDER BY 1;

-- options of an unfinished job
SELECT zdm.alter_job(t.job('paused'), batch_time => '50 ms', on_error => 'skip');
SELECT options ->> 'batch_time', options ->> 'on_error', options ->> 'workers' FROM zdm.jobs WHERE name = 'paused';
SELECT zdm.alter_job(t.job('paused'));
SELECT zdm.alter_job(t.job('paused'), batch_time => '70 ms', workers => 1, vacuum => false, max_wal_rate => '0 MB');
SELECT options ->> 'batch_time', options ->> 'on_error', options ->> 'workers' FROM zdm.jobs WHERE name = 'paused';
SELECT message FROM zdm.job_log WHERE job_id = t.job('paused') AND event = 'altered';
SELECT zdm.start_backfill('other', 'v = 100 / (id - 2)', 'v = 1', name => 'altered', paused => true) > 0;
SELECT zdm.alter_job(t.job('altered'), on_error => 'skip');
SELECT zdm.resume(t.job('altered'));
SELECT t.outcome('altered');

-- dependencies: in order, failing in a chain, and revived together
SELECT zdm.resume(t.job('paused'));
SELECT t.outcome('queued');
SELECT q.started_at >= p.finished_at FROM zdm.jobs p, zdm.jobs q WHERE p.name = 'paused' AND q.name = 'queued';
SELECT zdm.start_backfill('other', 'v = 10', name => 'first', paused => true) > 0;
SELECT zdm.start_backfill('other', 'v = 11', name => 'second', depends_on => ARRAY[t.job('first'), t.job('succeeded')]) > 0;
SELECT zdm.start_backfill('work', 'v = 12', name => 'third', depends_on => ARRAY[t.job('second')]) > 0;
SELECT zdm.start_backfill('work', 'v = 13', name => 'fourth', depends_on => ARRAY[t.job('first')], paused => true) > 0;
SELECT name, state, t.masked(waiting_for), depends_on = ARRAY[t.job('first'), t.job('succeeded')] FROM zdm.jobs WHERE name IN ('first', 'second', 'third', 'fourth') ORDER BY job_id;
SELECT zdm.cancel(t.job('first'));
SELECT t.outcome('second');
SELECT t.outcome('third');
SELECT t.outcome('fourth');
\set VERBOSITY sqlstate
SELECT t.job('third') AS third \gset
CALL zdm.wait(:third);
\set VERBOSITY default
SELECT zdm.retry(t.job('first'));
SELECT t.outcome('first');
SELECT t.outcome('second');
SELECT t.outcome('third');
SELECT state FROM zdm.jobs WHERE name = 'fourth';
SELECT zdm.resume(t.job('fourth'));
SELECT t.outcome('fourth');
SELECT count(*), min(v), max(v) FROM work;
-- a dependent of a job that fails by itself
SELECT zdm.start_backfill('other', 'v = 100 / (id - 2)', 'v = 11', name => 'will fail', paused => true) > 0;
SELECT zdm.start_backfill('work', 'v = 14', name => 'its dependent', depends_on => ARRAY[t.job('will fail')]) > 0;
SELECT zdm.resume(t.job('will fail'));
SELECT t.outcome('its dependent');
-- retried alone, it fails again while its dependency has not succeeded
SELECT zdm.retry(t.job('its dependent'));
SELECT t.outcome('its dependent');

-- everything held
SELECT zdm.start_backfill('other', 'v = 21', name => 'before the hold', paused => true) > 0;
SELECT zdm.pause_all();
SELECT zdm.pause_all();
SELECT zdm.start_backfill('other', 'v = 22', name => 'held') > 0;
SELECT name, state, regexp_replace(waiting_for, 'by \S+ since .*', 'by ... since ...') FROM zdm.jobs WHERE name IN ('held', 'before the hold') ORDER BY 1;
SELECT t.refused('SELECT zdm.resume(t.job(''held''))');
SELECT zdm.resume_all();
SELECT zdm.resume_all();
SELECT t.outcome('held');
SELECT state FROM zdm.jobs WHERE name = 'before the hold';
SELECT zdm.cancel(t.job('before the hold'));
-- a running one too
SELECT pg_advisory_lock(5000);
SELECT zdm.start_backfill('work', 'v = gated(a) + 100', 'v = 13', name => 'running, held') > 0;
SELECT t.outcome('running, held', '{running}') ~ '^running';
SELECT zdm.pause_all();
SELECT t.outcome('running, held', '{paused}') ~ '^paused';
SELECT pg_advisory_unlock(5000);
SELECT zdm.resume_all();
SELECT t.outcome('running, held');

SELECT count(*) FROM zdm.jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled');
DROP SCHEMA control CASCADE;
