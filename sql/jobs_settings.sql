-- Settings made before the library is loaded. jobs_settings_1.out is for servers that preload it.
SELECT current_setting('shared_preload_libraries') ~ 'zdm_ext' AS preloaded \gset
\if :preloaded
\quit
\endif
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA settings;
CREATE TABLE settings.users (id int PRIMARY KEY, a int);
-- a bad one made before the library is loaded falls back with a warning, an unknown one is named
SET zdm.on_error = 'ignore';
SET zdm.foo = 1;
\set VERBOSITY terse
SELECT zdm.start_backfill('settings.users', 'a = 1', name => 'bad before loading', paused => true) > 0;
\set VERBOSITY default
SHOW zdm.on_error;
SELECT options ->> 'on_error' FROM zdm.jobs WHERE name = 'bad before loading';
SELECT zdm.cancel(t.job('bad before loading'));
-- so does a bad one of the database, at the next connection
SELECT current_database() AS db \gset
\c
ALTER DATABASE :"db" SET zdm.max_wal_rate = '1 quart';
\c
\i :helpers
\set VERBOSITY terse
SELECT zdm.start_backfill('settings.users', 'a = 2', name => 'bad default', paused => true) > 0;
\set VERBOSITY default
ALTER DATABASE :"db" RESET zdm.max_wal_rate;
SELECT options ->> 'max_wal_rate' FROM zdm.jobs WHERE name = 'bad default';
SELECT zdm.cancel(t.job('bad default'));
DROP SCHEMA settings CASCADE;
