-- A job exists when its transaction commits, and never existed when it does not.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA transactions;
SET search_path = transactions;
CREATE TABLE a (id int PRIMARY KEY, v int, w int);
INSERT INTO a SELECT generate_series(1, 100);
CREATE TABLE b (id int PRIMARY KEY, v int);
INSERT INTO b SELECT generate_series(1, 100);

-- rollback
BEGIN;
SELECT zdm.start_backfill('a', 'v = 1', name => 'rolled back') > 0;
SELECT state, name FROM zdm.jobs WHERE job_id > :before;
ROLLBACK;
SELECT count(*) FROM zdm.jobs WHERE job_id > :before;
SELECT count(*) FROM zdm.job_log WHERE job_id > :before;
BEGIN;
SELECT zdm.start_backfill('a', 'v = 1', name => 'failed transaction') > 0;
SELECT 1 / 0;
COMMIT;
SELECT count(*) FROM zdm.jobs WHERE job_id > :before;
SELECT count(v) FROM a;

-- DDL and its backfill in one transaction: the job waits for the commit
BEGIN;
CREATE TABLE fresh (id int PRIMARY KEY, v int);
INSERT INTO fresh SELECT generate_series(1, 50);
ALTER TABLE a ADD COLUMN x int;
SELECT zdm.start_backfill('fresh', 'v = id', name => 'fresh') > 0;
SELECT zdm.start_backfill('a', 'x = id', name => 'added') > 0;
SELECT state, waiting_for FROM zdm.jobs WHERE job_id > :before ORDER BY job_id;
COMMIT;
SELECT t.outcome('fresh'), t.outcome('added');

-- savepoints
BEGIN;
SELECT zdm.start_backfill('a', 'v = 10', 'v IS NULL', name => 'before') > 0;
SAVEPOINT s;
SELECT zdm.start_backfill('a', 'v = 20', 'v < 20', name => 'savepoint undone') > 0;
ROLLBACK TO s;
SAVEPOINT s;
SELECT zdm.start_backfill('b', 'v = 30', name => 'kept savepoint') > 0;
RELEASE s;
COMMIT;
SELECT t.outcome('before'), t.outcome('kept savepoint'), t.job('savepoint undone');
SELECT DISTINCT v FROM a;
-- all of it undone
BEGIN;
SAVEPOINT s;
SELECT zdm.start_backfill('a', 'v = 40', name => 'all undone') > 0;
ROLLBACK TO s;
COMMIT;
SELECT t.job('all undone');

-- functions, DO blocks, exception blocks
CREATE FUNCTION enqueue(what text) RETURNS bigint LANGUAGE sql AS
$$ SELECT zdm.start_backfill('transactions.a', 'w = ' || length(what), name => what) $$;
SELECT enqueue('function') > 0;
SELECT t.outcome('function');
DO $$
BEGIN
    PERFORM zdm.start_backfill('transactions.a', 'w = 2', name => 'do');
    BEGIN
        PERFORM zdm.start_backfill('transactions.a', 'w = 3', name => 'in a failing block');
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        NULL;
    END;
END $$;
SELECT t.outcome('do'), t.job('in a failing block');
-- several, in order of their dependencies, in one transaction
BEGIN;
SELECT zdm.start_backfill('a', 'v = 100', name => 'chain 1') AS one \gset
SELECT zdm.start_backfill('a', 'w = v', name => 'chain 2', depends_on => ARRAY[:one]) AS two \gset
SELECT zdm.start_backfill('b', 'v = (SELECT min(w) FROM transactions.a)', name => 'chain 3', depends_on => ARRAY[:one, :two]) AS three \gset
COMMIT;
CALL zdm.wait(:three, timeout => '60 s');
SELECT t.outcome(:one), t.outcome(:two), t.outcome(:three);
SELECT DISTINCT v FROM b;
-- control calls are transactional as well
SELECT zdm.start_backfill('a', 'v = 5', name => 'controlled', paused => true) > 0;
BEGIN;
SELECT zdm.resume(t.job('controlled'));
ROLLBACK;
SELECT state FROM zdm.jobs WHERE name = 'controlled';
BEGIN;
SELECT zdm.cancel(t.job('controlled'));
SELECT state FROM zdm.jobs WHERE name = 'controlled';
ROLLBACK;
SELECT state FROM zdm.jobs WHERE name = 'controlled';
BEGIN;
SELECT zdm.alter_job(t.job('controlled'), batch_time => '5 ms');
ROLLBACK;
SELECT options ->> 'batch_time' FROM zdm.jobs WHERE name = 'controlled';
BEGIN;
SELECT zdm.pause_all();
ROLLBACK;
BEGIN;
SELECT zdm.resume(t.job('controlled'));
COMMIT;
SELECT t.outcome('controlled');
-- one that is enqueued, paused, altered and resumed before anybody else sees it
BEGIN;
SELECT zdm.start_backfill('a', 'v = 6', name => 'all at once') > 0;
SELECT zdm.pause(t.job('all at once'));
SELECT zdm.alter_job(t.job('all at once'), batch_time => '5 ms');
SELECT zdm.resume(t.job('all at once'));
COMMIT;
SELECT t.outcome('all at once');
BEGIN;
SELECT zdm.start_backfill('a', 'v = 7', name => 'cancelled at once') > 0;
SELECT zdm.cancel(t.job('cancelled at once'));
COMMIT;
SELECT t.outcome('cancelled at once');
SELECT DISTINCT v FROM a;

-- other isolation levels
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT zdm.start_backfill('a', 'v = 8', name => 'serializable') > 0;
COMMIT;
SELECT t.outcome('serializable');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM a;
SELECT zdm.start_backfill('a', 'v = 9', name => 'repeatable read') > 0;
COMMIT;
SELECT t.outcome('repeatable read');
-- read-only ones write nothing
BEGIN READ ONLY;
SELECT t.code($$SELECT zdm.start_backfill('transactions.a', 'v = 10')$$);
SELECT t.code($$SELECT zdm.pause_all()$$);
SELECT t.code($$SELECT zdm.require('serializable')$$);
SELECT count(*) > 0 FROM zdm.jobs;
COMMIT;
-- settings that would harm the job's own transactions
SET default_transaction_isolation = 'serializable';
SET default_transaction_read_only = on;
BEGIN READ WRITE;
SELECT zdm.start_backfill('a', 'v = 11', name => 'odd defaults') > 0;
COMMIT;
RESET default_transaction_read_only;
RESET default_transaction_isolation;
SELECT t.outcome('odd defaults');

-- a job enqueued by a job's trigger, as its role; it starts when the batch has committed
CREATE TABLE parents (id int PRIMARY KEY, v int);
CREATE TABLE children (id int PRIMARY KEY, v int);
INSERT INTO parents SELECT generate_series(1, 10);
INSERT INTO children SELECT generate_series(1, 10);
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM zdm.start_backfill('transactions.children', 'v = 1', name => 'follower');
    RETURN NULL;
END $$;
CREATE TRIGGER follow AFTER UPDATE ON parents FOR EACH ROW EXECUTE FUNCTION follow();
CALL t.backfill('parents', 'v = 1', NULL, name => 'leader');
SELECT t.until('SELECT t.job(''follower'') IS NOT NULL');
SELECT t.outcome('follower');

SELECT count(*) FROM zdm.jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled');
DROP SCHEMA transactions CASCADE;
