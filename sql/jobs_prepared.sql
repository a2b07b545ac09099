-- Two-phase commit. jobs_prepared_1.out is for servers that do not allow it.
SELECT current_setting('max_prepared_transactions')::int > 0 AS can_prepare \gset
\if :can_prepare
\else
\quit
\endif
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA prepared;
SET search_path = prepared;
CREATE TABLE a (id int PRIMARY KEY, v int);
CREATE TABLE b (id int PRIMARY KEY, v int);
INSERT INTO a SELECT generate_series(1, 100);
INSERT INTO b SELECT generate_series(1, 100);
-- a prepared transaction cannot start anything
BEGIN;
SELECT zdm.start_backfill('a', 'v = 12', name => 'prepared') > 0;
\set VERBOSITY sqlstate
PREPARE TRANSACTION 'regress_zdm';
\set VERBOSITY default
SELECT :'LAST_ERROR_MESSAGE';
SELECT t.job('prepared'), count(*) FROM pg_prepared_xacts;
-- a transaction without a job can
BEGIN;
UPDATE b SET v = 0 WHERE id = 1;
PREPARE TRANSACTION 'regress_zdm';
-- a row of a prepared transaction is named, and waited for
SELECT zdm.start_backfill('b', 'v = -1', name => 'behind a prepared one') > 0;
SELECT t.until($$SELECT waiting_for ~ '^row .* of prepared.b: prepared transaction regress_zdm$' FROM zdm.jobs WHERE name = 'behind a prepared one'$$);
COMMIT PREPARED 'regress_zdm';
SELECT t.outcome('behind a prepared one');

DROP SCHEMA prepared CASCADE;
