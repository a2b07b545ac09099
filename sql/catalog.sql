-- What CREATE EXTENSION makes: named arguments, comments, and nothing granted.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
SELECT extname, extrelocatable, n.nspname, e.extversion = a.default_version
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace JOIN pg_available_extensions a ON a.name = e.extname
WHERE extname = 'zdm_ext';

-- what people write in their migration files
SELECT CASE prokind WHEN 'p' THEN 'procedure ' ELSE 'function ' END || p.proname || '(' || pg_get_function_arguments(p.oid) || ')'
       || coalesce(' RETURNS ' || pg_get_function_result(p.oid), '')
FROM pg_proc p WHERE pronamespace = 'zdm'::regnamespace AND proname !~ '^_' ORDER BY proname COLLATE "C";
-- every enqueuing call takes the same ones after its own
SELECT p.proname FROM pg_proc p
WHERE pronamespace = 'zdm'::regnamespace AND 'depends_on' = ANY (proargnames)
  AND NOT pg_get_function_arguments(p.oid) LIKE '%name text DEFAULT NULL::text, workers integer DEFAULT NULL::integer, batch_time interval DEFAULT NULL::interval, max_replica_lag interval DEFAULT NULL::interval, max_wal_rate text DEFAULT NULL::text, max_rows_per_second bigint DEFAULT NULL::bigint, throttle_query text DEFAULT NULL::text, time_window text DEFAULT NULL::text, vacuum boolean DEFAULT NULL::boolean, on_error text DEFAULT NULL::text, depends_on bigint[] DEFAULT NULL::bigint[], paused boolean DEFAULT false';
SELECT zdm._enabled();  -- loads the library
-- every option of pace is a setting, an argument, and altered by zdm.alter_job
SELECT name, vartype, unit, boot_val, min_val, max_val, context, short_desc <> '' FROM pg_settings WHERE name LIKE 'zdm.%' ORDER BY name COLLATE "C";
SELECT a.argument FROM unnest((SELECT proargnames[4:] FROM pg_proc WHERE oid = 'zdm.start_backfill'::regproc)) a(argument)
WHERE argument NOT IN ('name', 'depends_on', 'paused')
  AND NOT (EXISTS (SELECT FROM pg_settings WHERE name = 'zdm.' || argument)
           AND argument = ANY ((SELECT proargnames FROM pg_proc WHERE oid = 'zdm.alter_job'::regproc)::text[]));

-- every function and view that people see carries a comment that shows its use
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = 'zdm'::regnamespace AND coalesce(obj_description(p.oid, 'pg_proc'), '') !~ '\w{3}.{20}';
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = 'zdm'::regnamespace AND relkind = 'v' AND relname !~ '^_' AND coalesce(obj_description(c.oid, 'pg_class'), '') !~ '\w{3}.{20}';
-- every argument has a name, and everything belongs to the extension
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = 'zdm'::regnamespace AND pronargs > 0 AND (coalesce(cardinality(proargnames), 0) < pronargs OR '' = ANY (proargnames));
SELECT pg_describe_object(classid, objid, 0) FROM (
    SELECT 'pg_proc'::regclass AS classid, oid AS objid FROM pg_proc WHERE pronamespace = 'zdm'::regnamespace
    UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relnamespace = 'zdm'::regnamespace AND relkind IN ('r', 'v', 'S', 'm')) o
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.classid AND d.objid = o.objid AND d.deptype = 'e'
                  AND d.refclassid = 'pg_extension'::regclass);

-- nothing is granted but the views, and the schema to nobody
SELECT c.oid::regclass, c.relacl FROM pg_class c
WHERE relnamespace = 'zdm'::regnamespace AND relkind IN ('r', 'S', 'm', 'p', 'f')
  AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner);
SELECT a.attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'zdm'::regnamespace AND attacl IS NOT NULL;
SELECT c.oid::regclass, a.grantee = 0 AS to_public, string_agg(a.privilege_type, ',') FROM pg_class c, aclexplode(c.relacl) a
WHERE relnamespace = 'zdm'::regnamespace AND relkind = 'v' AND a.grantee <> c.relowner GROUP BY c.oid, 2 ORDER BY c.oid::regclass::text COLLATE "C";
SELECT a.grantee::regrole, a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a WHERE nspname = 'zdm' AND a.grantee <> n.nspowner;
-- every table has a primary key, every sequence and table is dumped with its rows, every view is a barrier
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = 'zdm'::regnamespace AND relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary);
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = 'zdm'::regnamespace AND relkind IN ('r', 'S') AND c.oid <> ALL ((SELECT extconfig FROM pg_extension WHERE extname = 'zdm_ext')::oid[]);
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = 'zdm'::regnamespace AND relkind = 'v' AND NOT coalesce('security_barrier=true' = ANY (reloptions), false);
-- no function runs as its owner; what a library function may see, it decides by itself
SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'zdm'::regnamespace AND prosecdef;
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = prolang
WHERE pronamespace = 'zdm'::regnamespace AND lanname <> 'c' AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false);
-- enqueuing and waiting see the session as it is
SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'zdm'::regnamespace AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'c') AND proconfig IS NOT NULL;
-- nothing of the extension is in the way outside of its schema
SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'zdm_ext') AND deptype = 'e'
  AND pg_describe_object(classid, objid, 0) !~ '\mzdm\M' ORDER BY 1;
SELECT count(*) FROM pg_event_trigger;

-- named notation for all of it
CREATE SCHEMA named;
CREATE TABLE named.t (id int PRIMARY KEY, v int);
INSERT INTO named.t VALUES (1);
SELECT zdm.start_backfill(paused => true, depends_on => NULL, on_error => 'fail', vacuum => false, time_window => '', throttle_query => '',
    max_rows_per_second => 0, max_wal_rate => '0', max_replica_lag => '0', batch_time => '0.1 s', workers => 1, name => 'named',
    where_clause => 'v IS NULL', set_clause => 'v = id', relation => 'named.t') > 0;
SELECT zdm.alter_job(job_id => t.job('named'), on_error => NULL, vacuum => NULL, time_window => NULL, throttle_query => NULL,
    max_rows_per_second => NULL, max_wal_rate => NULL, max_replica_lag => NULL, batch_time => NULL, workers => NULL);
SELECT zdm.pause(job_id => t.job('named')), zdm.resume(job_id => t.job('named'));
SELECT t.job('named') AS job \gset
CALL zdm.wait(timeout => '60 s', job_id => :job);
SELECT zdm.require(name => 'named');
SELECT t.code('SELECT zdm.cancel(job_id => 0)'), t.code('SELECT zdm.retry(job_id => 0)');
DROP SCHEMA named CASCADE;

-- the mark that keeps the tables out of logical decoding: pg_upgrade loses it, the next call sets it again
SELECT count(*) FROM pg_class WHERE relnamespace = 'zdm'::regnamespace AND relkind = 'r' AND relrewrite = 0;
UPDATE pg_class SET relrewrite = 0 WHERE relnamespace = 'zdm'::regnamespace AND relkind = 'r';
CREATE TABLE marked (id int);
SELECT zdm.start_backfill('marked', 'id = 1', paused => true) > 0;
SELECT count(*) FROM pg_class WHERE relnamespace = 'zdm'::regnamespace AND relkind = 'r' AND relrewrite = 0;
SELECT zdm.cancel(max(job_id)) FROM zdm.jobs;
DROP TABLE marked;
