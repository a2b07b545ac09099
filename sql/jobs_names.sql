-- Names: the same call again is the same job, another definition is an error.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA names;
SET search_path = names;
CREATE TABLE a (id int PRIMARY KEY, v int, w int);
CREATE TABLE b (id int PRIMARY KEY, v int);
INSERT INTO a SELECT generate_series(1, 10);
INSERT INTO b SELECT generate_series(1, 10);

-- in every state: the same id, and nothing done twice
SELECT zdm.start_backfill('a', 'v = id', name => 'same', paused => true) AS first \gset
SELECT zdm.start_backfill('a', 'v = id', name => 'same') = :first;
SELECT zdm.start_backfill('names.a', 'v = id', NULL, 'same', paused => false) = :first;
SELECT state FROM zdm.jobs WHERE job_id = :first;  -- a call does not undo a pause
SELECT zdm.resume(:first);
SELECT t.outcome(:first);
SELECT zdm.start_backfill('a', 'v = id', name => 'same') = :first;
SELECT state, rows_done, attempts FROM zdm.jobs WHERE job_id = :first;
-- the pace and what it depends on are not part of what the job is
SELECT zdm.start_backfill('a', 'v = id', name => 'same', batch_time => '20 ms', on_error => 'skip', depends_on => ARRAY[:first]) = :first;
SELECT options ->> 'batch_time', options ->> 'on_error', depends_on FROM zdm.jobs WHERE job_id = :first;
SELECT zdm.start_backfill('a', 'w = 1 / (id - 5)', 'w IS NULL', name => 'failing, named') AS failing \gset
SELECT t.outcome(:failing);
SELECT zdm.start_backfill('a', 'w = 1 / (id - 5)', 'w IS NULL', name => 'failing, named') = :failing;
SELECT state, attempts FROM zdm.jobs WHERE job_id = :failing;  -- a failed job is retried by zdm.retry alone
SELECT count(*) FROM zdm.jobs WHERE job_id > :before;

-- another definition
SELECT t.refused($$SELECT zdm.start_backfill('a', 'v = id + 1', name => 'same')$$);
SELECT t.refused($$SELECT zdm.start_backfill('a', 'v =  id', name => 'same')$$);
SELECT t.refused($$SELECT zdm.start_backfill('a', 'v = id', 'v IS NULL', name => 'same')$$);
SELECT t.refused($$SELECT zdm.start_backfill('b', 'v = id', name => 'same')$$);
SELECT t.refused($$SELECT zdm.start_backfill('a', 'w = 1 / (id - 5)', name => 'failing, named')$$);
-- and wrong arguments stay wrong
SELECT t.refused($$SELECT zdm.start_backfill('a', 'nope = id', name => 'same')$$);
SELECT t.refused($$SELECT zdm.start_backfill('a', 'v = id', name => 'same', workers => 0)$$);
SELECT t.refused($$SELECT zdm.start_backfill('a', 'v = id', name => 'same', depends_on => ARRAY[0])$$);
-- names are told apart exactly
SELECT zdm.start_backfill('a', 'v = id + 1', name => 'Same', paused => true) > :first;
SELECT zdm.start_backfill('a', 'v = id + 2', name => 'same ', paused => true) > :first;
SELECT zdm.start_backfill('a', 'v = id + 3', name => E'\'"; DROP TABLE a; --\n$1 %s {}', paused => true) > :first;
SELECT zdm.start_backfill('a', 'v = id + 4', name => repeat('n', 200), paused => true) > :first;
SELECT zdm.start_backfill('a', 'v = id + 5', name => 'имя', paused => true) > :first;
SELECT name, definition FROM zdm.jobs WHERE state = 'paused' AND job_id > :before ORDER BY job_id;
SELECT count(zdm.cancel(job_id)) FROM zdm.jobs WHERE state = 'paused' AND job_id > :before;
-- without a name every call is a job
SELECT zdm.start_backfill('a', 'v = id') < zdm.start_backfill('a', 'v = id');
SELECT t.until('SELECT bool_and(state = ''succeeded'') FROM zdm.jobs WHERE name IS NULL AND job_id > ' || :before);

-- twice in one transaction, and after a rollback
BEGIN;
SELECT zdm.start_backfill('a', 'v = 1', name => 'transaction') AS one, zdm.start_backfill('a', 'v = 1', name => 'transaction') AS two \gset
SELECT :one = :two;
SELECT t.refused($$SELECT zdm.start_backfill('a', 'v = 2', name => 'transaction')$$);
ROLLBACK;
SELECT t.job('transaction');
SELECT t.refused($$SELECT zdm.require('transaction')$$);
SELECT zdm.start_backfill('a', 'v = 2', name => 'transaction') <> :one;
SELECT t.outcome('transaction');
BEGIN;
SAVEPOINT s;
SELECT zdm.start_backfill('a', 'v = 3', name => 'savepoint') > 0;
ROLLBACK TO s;
SELECT zdm.start_backfill('a', 'v = 4', name => 'savepoint') > 0;
COMMIT;
SELECT t.outcome('savepoint');
SELECT DISTINCT v FROM a;

-- a table of the same name is another table
SELECT zdm.start_backfill('b', 'v = id', name => 'table') > 0;
SELECT t.outcome('table');
DROP TABLE b;
CREATE TABLE b (id int PRIMARY KEY, v int);
SELECT t.refused($$SELECT zdm.start_backfill('b', 'v = id', name => 'table')$$);
-- a renamed one is the same
ALTER TABLE a RENAME TO aa;
SELECT zdm.start_backfill('aa', 'v = id', name => 'same') = :first;

-- names belong to their role, and say nothing of other roles' jobs
CREATE ROLE regress_zdm_one LOGIN;
CREATE ROLE regress_zdm_two LOGIN;
GRANT USAGE ON SCHEMA zdm, names TO regress_zdm_one, regress_zdm_two;
GRANT SELECT, UPDATE ON aa TO regress_zdm_one, regress_zdm_two;
SET SESSION AUTHORIZATION regress_zdm_one;
SELECT zdm.start_backfill('aa', 'v = 7', name => 'mine') > 0;
SELECT t.outcome('mine');
SET SESSION AUTHORIZATION regress_zdm_two;
SELECT t.refused($$SELECT zdm.start_backfill('aa', 'v = 7', name => 'mine')$$);
SELECT t.refused($$SELECT zdm.start_backfill('aa', 'v = id', name => 'same')$$);
-- zdm.require is for the next migration file, whoever runs it
SELECT zdm.require('mine');
RESET SESSION AUTHORIZATION;
SELECT t.refused($$SELECT zdm.start_backfill('aa', 'v = 7', name => 'mine')$$);

-- a migration file, run twice
CREATE PROCEDURE migration() LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE names.aa ADD COLUMN IF NOT EXISTS doubled int;
    PERFORM zdm.start_backfill('names.aa', 'doubled = id * 2', name => 'migration 1');
END $$;
CALL migration();
SELECT t.outcome('migration 1');
CALL migration();
SELECT t.outcome('migration 1');
SELECT zdm.require('migration 1');
SELECT sum(doubled) FROM aa;

DROP SCHEMA names CASCADE;
DROP OWNED BY regress_zdm_one, regress_zdm_two;
DROP ROLE regress_zdm_one, regress_zdm_two;
