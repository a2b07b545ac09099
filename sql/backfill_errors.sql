-- Rows that fail, statements that fail, and what is left of the job then.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA errors;
SET search_path = errors;

-- on_error => 'fail': exactly the failing row is named, nothing of the others is lost, and a retry goes on
CREATE TABLE numbers (id int PRIMARY KEY, divisor int, quotient int, writes int NOT NULL DEFAULT 0);
CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.writes := OLD.writes + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER count_writes BEFORE UPDATE OF quotient ON numbers FOR EACH ROW WHEN (NEW.quotient IS NOT NULL) EXECUTE FUNCTION count_writes();
INSERT INTO numbers (id, divisor) SELECT i, CASE WHEN i = 777 THEN 0 ELSE 1 END FROM generate_series(1, 1000) i;
CALL t.backfill('numbers', 'quotient = 100 / divisor', 'quotient IS NULL', name => 'fail');
SELECT * FROM t.row_errors('fail');
-- everything before the row is done, once; the row and all after it are not
SELECT count(*) FILTER (WHERE quotient IS NOT NULL), count(*) FILTER (WHERE id < 777 AND writes = 1),
       count(*) FILTER (WHERE id >= 777 AND writes = 0), sum(writes) FROM numbers;
SELECT finished_at IS NOT NULL, workers, pids, attempts, progress < 100 FROM zdm.jobs WHERE name = 'fail';
-- zdm.wait raises the job's own error, with the row in its context and the way out in its hint
SELECT t.job('fail') AS job \gset
\set VERBOSITY sqlstate
CALL zdm.wait(:job);
\set VERBOSITY default
SELECT r.error ->> 'sqlstate', r.error ->> 'message', t.masked(r.error ->> 'hint'), split_part(r.error ->> 'context', E'\n', 1)
FROM zdm.job_run r WHERE job_id = :job;
-- a retry before the cause is gone: the same error, nothing changed twice
SELECT zdm.retry(:job);
SELECT t.outcome(:job);
SELECT count(*) FILTER (WHERE writes = 1), count(*) FILTER (WHERE writes = 0), sum(writes) FROM numbers;
SELECT * FROM t.row_errors('fail');
-- fix and retry
UPDATE numbers SET divisor = 4 WHERE id = 777;
SELECT zdm.retry(:job);
CALL zdm.wait(:job, timeout => '60 s');
SELECT t.outcome(:job);
SELECT count(*) FILTER (WHERE quotient = 100 / divisor AND writes = 1) FROM numbers;
SELECT count(*) FROM t.row_errors('fail');
SELECT last_error, attempts FROM zdm.jobs WHERE job_id = :job;
SELECT event, regexp_replace(message, '\d+ (batches|ms)|pid \d+', 'N \1', 'g') FROM zdm.job_log WHERE job_id = :job
ORDER BY at;

-- on_error => 'skip': several, adjacent ones, the first and the last row of the table
UPDATE numbers SET divisor = CASE WHEN id IN (1, 500, 501, 502, 800, 1000) THEN 0 ELSE 1 END, quotient = NULL, writes = 0;
VACUUM FULL numbers;
CALL t.backfill('numbers', 'quotient = 100 / divisor', 'quotient IS NULL', name => 'skip', on_error => 'skip');
SELECT * FROM t.row_errors('skip');
SELECT count(*) FILTER (WHERE quotient IS NOT NULL AND writes = 1), array_agg(id ORDER BY id) FILTER (WHERE quotient IS NULL),
       sum(writes) FROM numbers;
-- half of them mended: the others remain
UPDATE numbers SET divisor = 1 WHERE id IN (1, 501, 1000);
SELECT zdm.retry(t.job('skip'));
SELECT t.outcome('skip');
SELECT * FROM t.row_errors('skip');
-- all of them mended
UPDATE numbers SET divisor = 1;
SELECT zdm.retry(t.job('skip'));
SELECT t.outcome('skip');
SELECT * FROM t.row_errors('skip');
SELECT count(*) FILTER (WHERE quotient = 100 AND writes = 1), sum(writes) FROM numbers;

-- on_error can be changed for the retry: skipped rows that somebody else mends are not held against the job
UPDATE numbers SET divisor = CASE WHEN id % 250 = 0 THEN 0 ELSE 1 END, quotient = NULL, writes = 0;
CLUSTER numbers USING numbers_pkey;
CALL t.backfill('numbers', 'quotient = 100 / divisor', 'quotient IS NULL', name => 'by the way');
SELECT key FROM t.row_errors('by the way');
-- ... but an ended job's options are what they were
SELECT t.refused($$SELECT zdm.alter_job(t.job('by the way'), on_error => 'skip')$$);
DELETE FROM numbers WHERE divisor = 0;
SELECT zdm.retry(t.job('by the way'));
SELECT t.outcome('by the way');
SELECT count(*), sum(writes) FROM numbers;

-- the key: as the table has it
CREATE TABLE composite (b text, "A Key" uuid, c date, n int, q int, PRIMARY KEY (c, "A Key"));
INSERT INTO composite VALUES ('x', '00000000-0000-0000-0000-00000000000a', '2026-02-03', 1),
                             ('y', '00000000-0000-0000-0000-00000000000b', '2026-02-03', 0);
CALL t.backfill('composite', 'q = 1 / n', NULL, name => 'composite', on_error => 'skip');
SELECT * FROM t.row_errors('composite');
CREATE TABLE keyless (n int, q int);
INSERT INTO keyless SELECT i % 3 FROM generate_series(1, 4) i;
CALL t.backfill('keyless', 'q = 1 / n', 'q IS NULL', name => 'keyless', on_error => 'skip');
SELECT * FROM t.row_errors('keyless');
CREATE TABLE big (id bigint PRIMARY KEY, n numeric, q numeric);
INSERT INTO big VALUES (9007199254740993, 0);
CALL t.backfill('big', 'q = 1 / n', 'q IS NULL', name => 'big', on_error => 'skip');
SELECT * FROM t.row_errors('big');
CREATE TABLE odd_keys (id float8, b bytea, at timestamptz, t text, PRIMARY KEY (id, b, at, t), n int, q int);
INSERT INTO odd_keys VALUES ('NaN', '\x00ff', 'infinity', E'"{}\\\n%s'), ('-0', '', '2026-03-01 12:00+00', 'é'), (1, '', 'epoch', '');
UPDATE odd_keys SET n = CASE WHEN t = '' THEN 1 ELSE 0 END;
CALL t.backfill('odd_keys', 'q = 1 / n', 'q IS NULL', name => 'odd keys', on_error => 'skip');
SELECT key FROM t.row_errors('odd keys') ORDER BY 1;
-- one that is too long to be recorded
CREATE TABLE long_keys (id text PRIMARY KEY, n int, q int);
INSERT INTO long_keys SELECT string_agg(md5(i::text), ''), 0 FROM generate_series(1, 84) i;
CALL t.backfill('long_keys', 'q = 1 / n', 'q IS NULL', name => 'long keys', on_error => 'skip');
SELECT * FROM t.row_errors('long keys');
CREATE TABLE parts (id int, n int, q int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO parts SELECT i, i % 5 FROM generate_series(1, 19) i;
CALL t.backfill('parts', 'q = 10 / n', 'q IS NULL', name => 'parts', on_error => 'skip');
SELECT * FROM t.row_errors('parts');
SELECT count(*), sum(q) FROM parts WHERE q = 10 / nullif(n, 0);

-- every kind of constraint, deferred ones too
CREATE TABLE parents (id int PRIMARY KEY);
INSERT INTO parents VALUES (1), (2);
CREATE TABLE children (id int PRIMARY KEY, v int, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, p int,
    c int CHECK (c < 10), nn int, r int4range,
    CONSTRAINT parent FOREIGN KEY (p) REFERENCES parents DEFERRABLE INITIALLY DEFERRED,
    EXCLUDE USING gist (r WITH &&) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO children (id, v, nn) VALUES (1, 1, 1), (2, 2, 1), (3, 12, 1);
CALL t.backfill('children', 'p = v', NULL, name => 'foreign key', on_error => 'skip');
SELECT * FROM t.row_errors('foreign key');
CALL t.backfill('children', 'c = v', NULL, name => 'check', on_error => 'skip');
SELECT * FROM t.row_errors('check');
ALTER TABLE children ALTER nn SET NOT NULL;
CALL t.backfill('children', 'nn = nullif(v, 2)', NULL, name => 'not null', on_error => 'skip');
SELECT * FROM t.row_errors('not null');
UPDATE children SET v = 5 WHERE id <> 2;
CALL t.backfill('children', 'u = v', NULL, name => 'unique', on_error => 'skip');
SELECT * FROM t.row_errors('unique');
CALL t.backfill('children', 'r = int4range(v, v + 1)', NULL, name => 'exclude', on_error => 'skip');
SELECT * FROM t.row_errors('exclude');
SELECT id, p, c, nn, u, r FROM children ORDER BY id;
-- a deferred constraint trigger
CREATE TABLE late (id int PRIMARY KEY, v int, w int);
INSERT INTO late SELECT i, i FROM generate_series(1, 100) i;
CREATE FUNCTION raise_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.w IN (13, 14) THEN
        RAISE 'the number % is not welcome', NEW.w USING ERRCODE = 'AB123';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER raise_late AFTER UPDATE ON late DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION raise_late();
CALL t.backfill('late', 'w = v', NULL, name => 'late');
SELECT * FROM t.row_errors('late');
SELECT count(w) FROM late;
CALL t.backfill('late', 'w = v', NULL, name => 'late skip', on_error => 'skip');
SELECT * FROM t.row_errors('late skip');
SELECT count(w), sum(w) FROM late;
-- an error that sets out to look like one of the engine's own, or of the server's trouble
CREATE TABLE liars (id int PRIMARY KEY, code text, w int);
INSERT INTO liars VALUES (1, 'ok'), (2, '42501'), (3, 'ok'), (4, '42P01'), (5, 'XX000'), (6, 'P0001'), (7, 'ZD006'), (8, '22012');
CREATE FUNCTION lie(code text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF code = 'ok' THEN RETURN 1; END IF;
    RAISE 'raised %', code USING ERRCODE = code;
END $$;
CALL t.backfill('liars', 'w = lie(code)', 'w IS NULL', name => 'liars', on_error => 'skip');
SELECT * FROM t.row_errors('liars');
SELECT array_agg(id ORDER BY id) FROM liars WHERE w = 1;

-- codes that mean "somebody else was first" are waited for, said, and obey
CREATE TABLE busy (id int PRIMARY KEY, code text, w int);
INSERT INTO busy VALUES (1, 'ok'), (2, '55P03'), (3, 'ok');
SELECT zdm.start_backfill('busy', 'w = lie(code)', 'w IS NULL', name => 'busy row') > 0;
SELECT t.until($$SELECT waiting_for = 'row (0,2) of errors.busy: raised 55P03' AND rows_done = 2 FROM zdm.jobs WHERE name = 'busy row'$$);
SELECT zdm.pause(t.job('busy row'));
SELECT t.outcome('busy row', '{paused}');
UPDATE busy SET code = '57014' WHERE id = 2;
SELECT zdm.resume(t.job('busy row'));
SELECT t.until($$SELECT waiting_for = 'cancelled: raised 57014' FROM zdm.jobs WHERE name = 'busy row'$$);
SELECT zdm.cancel(t.job('busy row'));
SELECT t.outcome('busy row');
UPDATE busy SET code = 'ok' WHERE id = 2;
SELECT zdm.retry(t.job('busy row'));
SELECT t.outcome('busy row');
SELECT count(*) FROM t.row_errors('busy row');

-- a where_clause that fails is a row's error as well
CREATE TABLE texts (id int PRIMARY KEY, v text, w int);
INSERT INTO texts VALUES (1, '1'), (2, 'two'), (3, '3');
CALL t.backfill('texts', 'w = 0', 'v::int > 0 AND w IS NULL', name => 'where', on_error => 'skip');
SELECT * FROM t.row_errors('where');
UPDATE texts SET v = '2' WHERE id = 2;
SELECT zdm.retry(t.job('where'));
SELECT t.outcome('where');

-- failures of the statement are no row's fault
CREATE ROLE regress_zdm_writer LOGIN;
GRANT USAGE ON SCHEMA zdm, errors TO regress_zdm_writer;
GRANT SELECT, UPDATE ON numbers TO regress_zdm_writer;
UPDATE numbers SET quotient = NULL, writes = 0, divisor = 1;
SET SESSION AUTHORIZATION regress_zdm_writer;
SELECT zdm.start_backfill('numbers', 'quotient = 100 / divisor', 'quotient IS NULL', name => 'revoked', paused => true) > 0;
RESET SESSION AUTHORIZATION;
REVOKE UPDATE ON numbers FROM regress_zdm_writer;
SELECT zdm.resume(t.job('revoked'));
SELECT t.outcome('revoked');
SELECT count(*) FROM t.row_errors('revoked');
GRANT UPDATE ON numbers TO regress_zdm_writer;
REVOKE SELECT ON numbers FROM regress_zdm_writer;
SELECT zdm.retry(t.job('revoked'));
SELECT t.outcome('revoked');
GRANT SELECT ON numbers TO regress_zdm_writer;
SELECT zdm.retry(t.job('revoked'));
SELECT t.outcome('revoked');
SELECT sum(writes), count(quotient) FROM numbers;

-- what happens to the table while a job is paused
CREATE TABLE moving (id int PRIMARY KEY, a int, b int, c int);
INSERT INTO moving SELECT i, i FROM generate_series(1, 100) i;
SELECT zdm.start_backfill('moving', 'b = a', name => 'column dropped', paused => true) > 0;
ALTER TABLE moving DROP COLUMN b;
SELECT zdm.resume(t.job('column dropped'));
SELECT t.outcome('column dropped');
SELECT count(*) FROM t.row_errors('column dropped');
ALTER TABLE moving ADD COLUMN b text;
SELECT zdm.retry(t.job('column dropped'));
SELECT t.outcome('column dropped');
SELECT count(*) FROM moving WHERE b = a::text;
SELECT zdm.start_backfill('moving', 'c = a', name => 'type changed', paused => true) > 0;
ALTER TABLE moving ALTER c TYPE date USING NULL;
SELECT zdm.resume(t.job('type changed'));
SELECT t.outcome('type changed');
ALTER TABLE moving ALTER c TYPE int USING NULL;
SELECT zdm.retry(t.job('type changed'));
SELECT t.outcome('type changed');
SELECT count(*) FROM moving WHERE c = a;
-- renamed: it is the same table
UPDATE moving SET c = NULL;
SELECT zdm.start_backfill('moving', 'c = a', name => 'renamed', paused => true) > 0;
ALTER TABLE moving RENAME TO moved;
SELECT zdm.resume(t.job('renamed'));
SELECT t.outcome('renamed');
SELECT count(*) FROM moved WHERE c = a;
-- truncated and filled again
SELECT zdm.start_backfill('moved', 'c = a + 1', name => 'truncated', paused => true) > 0;
TRUNCATE moved;
INSERT INTO moved SELECT i, i FROM generate_series(1, 33) i;
SELECT zdm.resume(t.job('truncated'));
SELECT t.outcome('truncated');
SELECT count(*) FROM moved WHERE c = a + 1;
-- rewritten
SELECT zdm.start_backfill('moved', 'c = a + 2', name => 'rewritten', paused => true) > 0;
VACUUM FULL moved;
SELECT zdm.resume(t.job('rewritten'));
SELECT t.outcome('rewritten');
SELECT zdm.start_backfill('moved', 'c = a + 3', name => 'clustered', paused => true) > 0;
CLUSTER moved USING moving_pkey;
SELECT zdm.resume(t.job('clustered'));
SELECT t.outcome('clustered');
SELECT count(*) FROM moved WHERE c = a + 3;
-- rewritten or truncated between a failure and its retry: the pass starts again, and changes nothing twice
ALTER TABLE moved ADD writes int NOT NULL DEFAULT 0, ADD quotient int;
CREATE TRIGGER count_writes BEFORE UPDATE OF quotient ON moved FOR EACH ROW EXECUTE FUNCTION count_writes();
CALL t.backfill('moved', 'quotient = 100 / (a - 20)', 'quotient IS NULL', name => 'rewritten half way');
UPDATE moved SET a = 40 WHERE a = 20;
VACUUM FULL moved;
SELECT zdm.retry(t.job('rewritten half way'));
SELECT t.outcome('rewritten half way');
SELECT count(*), count(quotient), sum(writes) FROM moved;
-- dropped, and another one of the same name
SELECT zdm.start_backfill('moved', 'c = a', name => 'dropped', paused => true) > 0;
DROP TABLE moved;
CREATE TABLE moved (id int PRIMARY KEY, a int, c int);
INSERT INTO moved VALUES (1, 1);
SELECT zdm.resume(t.job('dropped'));
SELECT t.outcome('dropped');
SELECT relation::text ~ '^\d+$', definition FROM zdm.jobs WHERE name = 'dropped';
SELECT c FROM moved;

-- a row that keeps matching: undone by a trigger, or never made false
CREATE TABLE stubborn (id int PRIMARY KEY, a int, b int, writes int NOT NULL DEFAULT 0);
INSERT INTO stubborn SELECT i, i FROM generate_series(1, 10) i;
CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.b := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER undo BEFORE UPDATE ON stubborn FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION undo();
CALL t.backfill('stubborn', 'b = a', NULL, name => 'undone');
SELECT count(*) FROM t.row_errors('undone');
CALL t.backfill('stubborn', 'writes = writes + 1', 'true', name => 'never false');
CALL t.backfill('stubborn', 'writes = writes + 1', NULL, name => 'never false, derived');
SELECT sum(writes), count(b) FROM stubborn;
DROP TRIGGER undo ON stubborn;
SELECT zdm.retry(t.job('undone'));
SELECT t.outcome('undone');
-- updates that a trigger suppresses: the job ends, and says so
UPDATE stubborn SET b = NULL;
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER suppress BEFORE UPDATE ON stubborn FOR EACH ROW WHEN (OLD.id IN (3, 4)) EXECUTE FUNCTION suppress();
CALL t.backfill('stubborn', 'b = a', NULL, name => 'suppressed');
SELECT count(b) FROM stubborn;
DROP TRIGGER suppress ON stubborn;
SELECT zdm.retry(t.job('suppressed'));
SELECT t.outcome('suppressed');
SELECT count(b) FROM stubborn;

-- a trigger that deletes the row itself, and one that changes it
CREATE TABLE restless (id int PRIMARY KEY, v int, w int);
INSERT INTO restless SELECT generate_series(1, 5);
CREATE FUNCTION restless() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id = 2 THEN
        DELETE FROM errors.restless WHERE id = 2;
    ELSIF NEW.id = 4 THEN
        UPDATE errors.restless SET w = 1 WHERE id = 4 AND w IS NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER restless BEFORE UPDATE OF v ON restless FOR EACH ROW EXECUTE FUNCTION restless();
CALL t.backfill('restless', 'v = 1', NULL, name => 'restless', on_error => 'skip');
SELECT * FROM t.row_errors('restless');
SELECT * FROM restless ORDER BY 1;

DROP OWNED BY regress_zdm_writer;
DROP ROLE regress_zdm_writer;
DROP SCHEMA errors CASCADE;
