-- Check 6: one transaction, hostile SQL and our bookkeeping in it. Variables: who, session, role.
\set safe '\'evil, pg_catalog\''
-- A statement that is stored out of line.
SELECT string_agg(md5(i::text), '') AS long FROM generate_series(1, 1000) AS i \gset

CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = evil.become('user set') WHERE id = 1 /* $$ || :'long' || $$ */$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=1 ok, user set by role, --', :'who' || 'a SET clause that calls RESET ROLE and others');
SELECT boundary.eq((SELECT count(*)::text FROM evil.t JOIN boundary.ledger ON t.xmin = xid::xid AND who = :'super' || ' restricted pg_catalog, pg_temp'
    WHERE task = :task), '1', :'who' || 'its row and our bookkeeping, by the owner, restricted, with our search_path, are one transaction');
SELECT boundary.eq(boundary.locks(:task), 'lock kept, lock recovered', :'who' || 'the lock is still held after the commit');
SELECT boundary.eq((SELECT string_agg(DISTINCT session, ',') FROM boundary.witnessed(:task) WHERE what LIKE 'user%'), :'session',
    :'who' || 'the worker is connected as it was told to');

CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.triggered SET v = 1$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=1 ok, user before by role, user after by role, --', :'who' || 'row triggers');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.deferred SET v = 1$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=1 ok, user deferred by role, --', :'who' || 'a deferred trigger is forced before the bookkeeping');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.deferring SET v = 1$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=1 ok, user deferred 1 by role, --, user deferred 2 by role, user deferred 3 by role',
    :'who' || 'one that defers itself again runs at commit, still as the role');
CALL boundary.attempt(:'session', :'role', 'pg_catalog',
    $$SELECT evil.run('DECLARE c CURSOR WITH HOLD FOR SELECT evil.become(''user cursor'')')$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=1 ok, --, user cursor by role', :'who' || 'a cursor WITH HOLD runs at commit, as the role');

CALL boundary.attempt(:'session', :'role', :safe, $$UPDATE evil.t SET v = 1 WHERE id OPERATOR(pg_catalog.=) 1$$, 'probe', 2, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=2 ok, user + by role, --', :'who' || 'operators in front of pg_catalog run for the user alone');
SELECT boundary.eq((SELECT seen || ' ' || (extensions = (SELECT count(*) FROM pg_catalog.pg_extension)) FROM boundary.ledger WHERE task = :task),
    '666/42 true', :'who' || 'one statement text, two search paths: each side has its own plan, and catalogs are the real ones');
CALL boundary.attempt(:'session', :'role', :safe,
    $$SELECT evil.run('CREATE TEMP TABLE ledger (task bigint, n bigint)'), evil.run('CREATE TEMP TABLE pg_extension ()'),
      evil.run('CREATE TEMP TABLE task ()'), evil.run('CREATE TEMP TABLE gone (v integer) ON COMMIT DROP')$$, '', 1, NULL) \gset
SELECT boundary.eq((SELECT n || ' ' || (extensions = (SELECT count(*) FROM pg_catalog.pg_extension)) FROM boundary.ledger WHERE task = :task),
    '1 true', :'who' || 'temporary tables shadow nothing of ours');

CALL boundary.attempt(:'session', :'role', 'pg_catalog',
    $$SELECT evil.run('SET search_path = evil, pg_catalog'), evil.run('SET LOCAL search_path = evil, pg_catalog'),
      pg_catalog.set_config('search_path', 'evil, pg_catalog', false), evil.run('SET default_transaction_read_only = on'),
      evil.run('SET default_transaction_isolation = serializable'), evil.run('SET row_security = off'),
      evil.run('SET DateStyle = ''SQL, DMY'''), evil.run('SET IntervalStyle = iso_8601'), evil.run('SET TimeZone = ''Asia/Tokyo'''),
      evil.run('SET extra_float_digits = -15'), evil.run('SET bytea_output = escape'),
      evil.run('SET plan_cache_mode = force_generic_plan')$$, '', 3, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=3 ok, --', :'who' || 'settings that user code leaves behind do not reach the bookkeeping, nor the next batch');
CALL boundary.attempt(:'session', :'role', 'pg_catalog',
    $$UPDATE evil.t SET v = 1000; SET TRANSACTION READ ONLY$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task) || (SELECT sum(v) FROM evil.t), 'n=0 25006, --0', :'who' || 'a transaction that user code made read-only aborts whole');

CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$SELECT pg_advisory_unlock_all()$$, '', 2, NULL) \gset
SELECT boundary.eq(boundary.summary(:task) || boundary.locks(:task), 'n=2 ok, --lock kept, lock recovered, lock kept, lock recovered',
    :'who' || 'pg_advisory_unlock_all() does not take our lock');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.deferring SET v = 21$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.locks(:task), 'lock lost, lock recovered', :'who' || 'at commit it does: recover() is owed after each commit');

CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = 1000; SELECT evil.fail('ZD005')$$, '', 1, NULL) \gset
SELECT boundary.eq((SELECT concat_ws('|', sqlstate, message, detail, hint, (regexp_match(context, '^[^\n]*'))[1], (SELECT sum(v) FROM evil.t)) FROM boundary.task WHERE task = :task),
    'ZD005|message of ZD005|detail|hint|PL/pgSQL function evil.fail(text) line 3 at RAISE|0', :'who' || 'a failure is recorded with all fields, the transaction aborts whole');
CREATE TEMP TABLE IF NOT EXISTS states (state text, got text);
TRUNCATE states;
SELECT format($$CALL boundary.attempt(%L, %L, 'pg_catalog', 'UPDATE evil.t SET v = 1000; SELECT evil.fail(''%s'')', '', 1, NULL) \gset
    INSERT INTO states SELECT '%s', boundary.summary(:task) || ' ' || (SELECT sum(v) FROM evil.t);$$, :'session', :'role', s, s)
FROM unnest(ARRAY['ZZ999', '57014', 'P0004', '40001', '53200', '57P01', 'XX000', '22012']) AS s \g :include
\i :include
SELECT boundary.ok(count(*) = 8 AND bool_and(got = 'n=0 ' || state || ' 0'), :'who' || 'any SQLSTATE aborts the transaction whole and is recorded',
    string_agg(state || ': ' || got, ', ')) FROM states;
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.deferring SET v = 11$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task) || ' ' || (SELECT v FROM evil.deferring) || ' ' || boundary.locks(:task),
    'n=0 ZZ012, user deferred 11 by role, --, user deferred 12 by role 22 lock recovered',
    :'who' || 'an error in the commit takes the bookkeeping back as well');

CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = 1000; LISTEN evil$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task) || ' ' || (SELECT sum(v) FROM evil.t), 'n=0 0A000 0', :'who' || 'LISTEN is refused in a worker');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$SELECT pg_notify('evil', 'x')$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=1 ok, --', :'who' || 'NOTIFY is not');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = 1000; DO 'BEGIN COMMIT; END'$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task) || ' ' || (SELECT sum(v) FROM evil.t), 'n=0 2D000 0', :'who' || 'user code cannot commit');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = 1000; COMMIT$$, '', 1, NULL) \gset
SELECT boundary.ok(boundary.summary(:task) ~ '^n=0 (0A000|XX000|2D000)$' AND (SELECT sum(v) FROM evil.t) = 0, :'who' || 'not as a statement either', boundary.summary(:task));
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = 1000; RESET ROLE$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task) || ' ' || (SELECT sum(v) FROM evil.t), 'n=0 42501 0', :'who' || 'RESET ROLE as a statement');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE boundary.ledger SET n = 1000$$, '', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=0 42501', :'who' || 'our own table is out of reach');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = ('{7}'::evil.checked[])[1] WHERE id = 1$$, '', 2, NULL) \gset
SELECT boundary.eq(boundary.summary(:task) || ' ' || (SELECT sum(v) FROM evil.t), 'n=2 ok, -- 7', :'who' || 'a literal that runs a query while it is parsed');
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = 1 WHERE id = 1; SELECT pg_sleep(0.02)$$, '', 2, NULL) \gset
SELECT boundary.ok(last_at > first_at AND last_at > clock_timestamp() - interval '10 s', :'who' || 'now() is the time of the transaction, not of the start of the worker',
    first_at || ' ' || last_at) FROM boundary.ledger WHERE task = :task;
SELECT boundary.eq((SELECT count(*)::text FROM boundary.loot), '0', :'who' || 'nothing was looted');
SELECT boundary.eq((SELECT string_agg(name || ' ' || what, ', ') FROM boundary.task, boundary.witnessed(task)
    WHERE mode <> ALL ('{naive switch,set role only,"no force, commit as session",commit as session}')
      AND (super = 'superuser' OR what LIKE '% did %')), NULL, :'who' || 'no witness ever saw a superuser, or an attempt that worked');
