-- Every wrong argument of zdm.start_backfill is one error with its SQLSTATE and a hint, before anything is written.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA arguments;
SET search_path = arguments;
CREATE TABLE users (id int PRIMARY KEY, a int, b text, g int GENERATED ALWAYS AS (a + 1) STORED,
                    n int GENERATED ALWAYS AS IDENTITY, at timestamptz, arr int[], j json);
INSERT INTO users (id, a, b) SELECT i, i, 'x' FROM generate_series(1, 5) i;
CREATE TABLE others (id int PRIMARY KEY, v int);

-- unknown things
SELECT t.refused($$SELECT zdm.start_backfill('users', 'nope = 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = nope')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = users.nope')$$);
SELECT t.refused_briefly($$SELECT zdm.start_backfill('users', 'a = arguments.users.a')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = nowhere.v')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = (SELECT v FROM nowhere)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = nope(b)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = nowhere.nope(b)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'b = a::nope')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'nope IS NULL')$$);
SELECT t.try($$SELECT zdm.start_backfill('nowhere', 'a = 1')$$);  -- regclass says so
SELECT t.refused($$SELECT zdm.start_backfill(0, 'a = 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill(4294967295, 'a = 1')$$);

-- syntax, and more than one clause
SELECT t.refused($$SELECT zdm.start_backfill('users', '')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', E' \n\t ')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a =')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a == 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'SET a = 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1, a = 2')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1; DROP TABLE users')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1;')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1 WHERE true --')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = v FROM others')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1 RETURNING *')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1 WHERE CURRENT OF c')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1 /*')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'b = ''x')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'b = "x')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'b = $q$x')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'b = E''x\')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = $1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', '(a, b) = (1)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', '')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', '  ')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true) OR (true')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true; DROP TABLE users')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true;')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true ORDER BY 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true LIMIT 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true FOR UPDATE')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true GROUP BY 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true UNION SELECT 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true RETURNING a')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'WHERE true')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'true /* x')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'b = ''x')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'b = $q$ x')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'id = $1')$$);
SELECT to_regclass('users') AS "nothing smuggled ran", count(*), sum(a) FROM users;

-- comments are no harm, and nothing after them is lost
CALL t.backfill('users', 'a = a -- , b = ''y''', 'b = ''y'' -- OR true');
CALL t.backfill('users', 'b = /* not this: */ ''z''', 'b = ''x'' AND /* id < 0 */ id < 3');
SELECT id, b FROM users ORDER BY id;

-- types
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = b')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = ''x''')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'a')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', '1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'b > 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1 / 0')$$);

-- what is not one value a row
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = sum(id)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = row_number() OVER ()')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = generate_series(1, 3)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = (SELECT 1, 2)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'sum(id) > 1')$$);

-- columns of the server's own
SELECT t.refused($$SELECT zdm.start_backfill('users', 'g = 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'n = 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'ctid = ''(0,1)''')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'xmin = 1', 'true')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'tableoid = 1', 'true')$$);

-- what can never be seen to be done
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = (random() * 10)::int')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = nextval(''zdm.job_id_seq'')')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'at = now()')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'at = CURRENT_TIMESTAMP')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'at = clock_timestamp()')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'at = CURRENT_DATE')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'b = ctid::text')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'b = xmin::text')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'arr[1] = 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'random() < 0.5')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', 'id IN (SELECT nextval(''zdm.job_id_seq''))')$$);
-- ... is allowed with a where_clause that can
CALL t.backfill('users', 'at = now()', 'at IS NULL');
CALL t.backfill('users', 'a = (random() * 10)::int + 1000', 'a < 1000');
CALL t.backfill('users', 'arr[1] = 1', 'arr[1] IS DISTINCT FROM 1');

-- NULL where a value is needed
SELECT t.refused($$SELECT zdm.start_backfill(NULL, 'a = 1')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', NULL)$$);

-- options: out of their bounds
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', workers => 0)$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', workers => -1)$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', workers => 2147483647)$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', batch_time => '0')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', batch_time => '-1 ms')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', batch_time => '1 day')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', batch_time => '1 month')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', batch_time => '-1 month 30 days')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', batch_time => '178000000 years')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', batch_time => interval '2147483647 days')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_replica_lag => '-1 s')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_replica_lag => '1 year')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_replica_lag => '2 days')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_wal_rate => 'fast')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_wal_rate => '')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_wal_rate => '-1MB')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_wal_rate => '99999999999999999999')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_rows_per_second => -1)$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', on_error => 'ignore')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', on_error => '')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', on_error => 'FAIL')$$);

-- options: not available yet, but their defaults are
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', workers => 2)$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_replica_lag => '5 s')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_wal_rate => '50MB')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_rows_per_second => 1000)$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', max_rows_per_second => 9223372036854775807)$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', throttle_query => 'SELECT false')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', time_window => '22:00-05:00 Europe/Berlin')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', vacuum => true)$$);
SELECT t.try($$SELECT zdm.start_backfill('users', 'a = 1', workers => 1, batch_time => '60 s', max_replica_lag => '0',
    max_wal_rate => '0', max_rows_per_second => 0, throttle_query => '', time_window => '', vacuum => false,
    on_error => 'skip', depends_on => '{}', paused => true, name => 'defaults')$$);
SELECT options ->> 'batch_time', options ->> 'on_error', options ->> 'workers', state, depends_on, waiting_for
FROM zdm.jobs WHERE name = 'defaults';
SELECT zdm.cancel(t.job('defaults'));
-- a span shorter than a millisecond is one millisecond
SELECT zdm.cancel(zdm.start_backfill('users', 'a = 1', batch_time => '1 us', paused => true, name => 'shortest'));
SELECT options ->> 'batch_time' FROM zdm.jobs WHERE name = 'shortest';

-- name
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', name => '')$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', name => repeat('x', 201))$$);

-- depends_on
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', depends_on => ARRAY[NULL::bigint])$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', depends_on => ARRAY[0])$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', depends_on => ARRAY[-1, NULL])$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', depends_on => ARRAY[9223372036854775807])$$);
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', depends_on => ARRAY[t.job('defaults')])$$);
SELECT zdm.start_backfill('users', 'a = 1 / (a - a)', 'true', name => 'failing') > 0;
SELECT t.outcome('failing');
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1', depends_on => ARRAY[t.job('failing')])$$);

-- positions, casts and unknown argument names are the server's
SELECT t.try($$SELECT zdm.start_backfill('users', 'a = 1', batchtime => '1 s')$$);

-- the settings take the same values ...
SELECT t.code('SET zdm.batch_time = 0');
SELECT t.code('SET zdm.batch_time = ''61 s''');
SELECT t.code('SET zdm.batch_time = ''a while''');
SELECT t.code('SET zdm.workers = 0');
SELECT t.try('SET zdm.on_error = ''ignore''');
SELECT t.try('SET zdm.max_wal_rate = ''fast''');
SELECT t.try('SET zdm.max_rows_per_second = -5');
SELECT t.code('SET zdm.max_replica_lag = -1');
SELECT t.code('SET zdm.vacuum = ''perhaps''');
SELECT t.try('SET zdm.foo = 1');
SELECT t.try('SET zdm.enabled = off');
SELECT t.try('SET zdm.max_workers = 1');
SELECT t.try('SET zdm.job_retention = 0');
-- ... and what is not available is refused where it is used
SET zdm.workers = 4;
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1')$$);
SELECT t.try($$SELECT zdm.cancel(zdm.start_backfill('users', 'a = 1', workers => 1, paused => true))$$);
RESET zdm.workers;
SET zdm.max_wal_rate = '1MB';
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1')$$);
RESET zdm.max_wal_rate;
SET zdm.time_window = '22:00-05:00 UTC';
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1')$$);
RESET zdm.time_window;
SET zdm.vacuum = on;
SELECT t.refused($$SELECT zdm.start_backfill('users', 'a = 1')$$);
RESET zdm.vacuum;

-- captured at the call: SET LOCAL, the role's, the database's; an argument overrides
BEGIN;
SET LOCAL zdm.on_error = 'skip';
SET LOCAL zdm.batch_time = '33 ms';
SELECT zdm.start_backfill('users', 'a = 1', name => 'local', paused => true) > 0;
SELECT zdm.start_backfill('users', 'a = 1', name => 'argument', paused => true, batch_time => '44 ms', on_error => 'fail') > 0;
COMMIT;
SELECT zdm.start_backfill('users', 'a = 1', name => 'plain', paused => true) > 0;
SELECT current_database() AS db, current_user AS me \gset
ALTER DATABASE :"db" SET zdm.batch_time = '55 ms';
CREATE ROLE regress_zdm_pace LOGIN SUPERUSER;
ALTER ROLE regress_zdm_pace SET zdm.on_error = 'skip';
\c - regress_zdm_pace
\i :helpers
-- the library is not loaded yet: a setting made before it is counts too
SET zdm.lock_timeout = '2 s';
SELECT zdm.start_backfill('arguments.users', 'a = 1', name => 'role and database', paused => true) > 0;
\c - :me
\i :helpers
SET zdm.batch_time = '66 ms';
SELECT zdm.start_backfill('arguments.users', 'a = 1', name => 'before loading', paused => true) > 0;
ALTER DATABASE :"db" RESET zdm.batch_time;
SELECT name, options ->> 'batch_time' AS batch_time, options ->> 'on_error' AS on_error
FROM zdm.jobs WHERE state = 'paused' ORDER BY job_id;
SELECT count(zdm.cancel(job_id)) FROM zdm.jobs WHERE state = 'paused';
DROP OWNED BY regress_zdm_pace;
DROP ROLE regress_zdm_pace;
DROP SCHEMA arguments CASCADE;
