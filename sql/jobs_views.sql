-- What zdm.jobs, zdm.progress, zdm.job_log and zdm.job_errors show.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA views;
SET search_path = views;
SELECT c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.oid = ANY ('{zdm.jobs,zdm.progress,zdm.job_log,zdm.job_errors}'::regclass[]) GROUP BY 1 ORDER BY 1;

CREATE TABLE work (id int PRIMARY KEY, v int, w int);
INSERT INTO work SELECT generate_series(1, 1000);
ANALYZE work;
-- paused: nothing has begun
SELECT zdm.start_backfill('work', 'v = id', name => 'views: job', paused => true) > 0;
SELECT name, kind, relation, state, phase, progress, rows_done, rows_total, rows_per_second, eta, throttled_by, waiting_for, workers, pids,
       attempts, last_error, wal_bytes, throttled_seconds
FROM zdm.jobs WHERE name = 'views: job';
SELECT definition, owner = current_user, created_at BETWEEN now() - interval '1 h' AND clock_timestamp(), started_at, last_progress_at, finished_at,
       change_id, depends_on
FROM zdm.jobs WHERE name = 'views: job';
SELECT key, value FROM zdm.jobs, jsonb_each_text(options) WHERE name = 'views: job' ORDER BY key;
SELECT job, state, progress, rows, "rows/s", eta, held_by FROM zdm.progress WHERE job_id > :before;
-- running: a row that somebody holds, by pid and program
SET application_name = 'the holder';
CREATE FUNCTION gate(id int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(5001); RETURN id; END $$;
SELECT pg_advisory_lock(5001);
SELECT zdm.start_backfill('work', 'w = gate(id)', 'w IS NULL AND id > 990', name => 'views: running') > 0;
SELECT t.outcome('views: running', '{running}');
SELECT state, progress < 100, workers, cardinality(pids), pids[1] IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'zdm_ext runner'), attempts,
       started_at >= created_at, finished_at, last_error, rows_done
FROM zdm.jobs WHERE name = 'views: running';
SELECT query = format('zdm job %s: backfill on views.work', t.job('views: running')), usename = current_user, datname = current_database()
FROM pg_stat_activity WHERE pid = (SELECT pids[1] FROM zdm.jobs WHERE name = 'views: running');
-- its turn is held: the next one says for whom it waits
SELECT zdm.start_backfill('work', 'v = 2', name => 'views: next') > 0;
SELECT state, waiting_for = 'job ' || t.job('views: running'), workers FROM zdm.jobs WHERE name = 'views: next';
SELECT job, state, progress LIKE '[____________________] % \%', rows LIKE '0 of ~%', held_by ~ '^job \d+$' FROM zdm.progress WHERE job = 'views: next';
-- a job without a name
SELECT zdm.start_backfill('work', 'v = 3', paused => true) AS nameless \gset
SELECT job FROM zdm.progress WHERE job_id = :nameless;
SELECT zdm.cancel(:nameless);
SELECT pg_advisory_unlock(5001);
SELECT t.outcome('views: running');
SELECT t.outcome('views: next');
-- done
SELECT state, phase, progress, rows_done, rows_total, rows_per_second > 0, eta, waiting_for, workers, pids, attempts, wal_bytes > 0,
       started_at <= last_progress_at AND last_progress_at <= finished_at
FROM zdm.jobs WHERE name = 'views: next';
SELECT progress, rows FROM zdm.progress WHERE job = 'views: next';
SELECT event, regexp_replace(regexp_replace(message, '\d+ batches', 'N batches'), 'pid \d+', 'pid N')
FROM zdm.job_log WHERE job_id = t.job('views: next');
SELECT bool_and(at >= created_at) FROM zdm.job_log JOIN zdm.jobs USING (job_id) WHERE job_id = t.job('views: next');
-- a table that is gone
SELECT zdm.resume(t.job('views: job'));
SELECT t.outcome('views: job');
SELECT zdm.start_backfill('work', 'v = 100 / (id - 5)', 'v = id', name => 'views: with errors', on_error => 'skip') > 0;
SELECT t.outcome('views: with errors');
SELECT relation, key, sqlstate, message, at <= now() FROM zdm.job_errors WHERE job_id = t.job('views: with errors');
ALTER TABLE work RENAME TO renamed;
SELECT DISTINCT relation FROM zdm.jobs WHERE job_id > :before;
DROP TABLE renamed;
SELECT count(DISTINCT relation), bool_and(relation::text ~ '^\d+$') FROM zdm.jobs WHERE job_id > :before;
SELECT count(*) FROM zdm.job_errors WHERE job_id = t.job('views: with errors');
SELECT count(*) FROM zdm.progress WHERE job_id > :before;
-- the parts
SELECT zdm._shown_state('running', 'run', true), zdm._shown_state('running', 'run', false), zdm._shown_state('queued', 'pause', false),
       zdm._shown_state('running', 'cancel', false), zdm._shown_state('succeeded', 'cancel', false), zdm._shown_state(NULL, 'run', true);
SELECT t.code($$SELECT zdm._shown_state('nonsense', 'run', true)$$), t.code($$SELECT zdm._shown_state('running', 'nonsense', true)$$);
SELECT zdm._enabled(), zdm._job_alive(t.job('views: job')), zdm._job_alive(NULL), zdm._job_alive(-1), zdm._home() = zdm._home();
DROP SCHEMA views CASCADE;
