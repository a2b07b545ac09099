-- Who may do what, and what a job's code can do: no more than its session could.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
SELECT current_user AS me \gset
CREATE ROLE regress_zdm_alice LOGIN;
CREATE ROLE regress_zdm_bob LOGIN;
CREATE ROLE regress_zdm_group NOLOGIN ROLE regress_zdm_alice;
CREATE ROLE regress_zdm_monitor LOGIN IN ROLE pg_monitor;
CREATE ROLE regress_zdm_operator LOGIN IN ROLE pg_signal_backend;
CREATE SCHEMA alice AUTHORIZATION regress_zdm_alice;
CREATE SCHEMA bob AUTHORIZATION regress_zdm_bob;
CREATE SCHEMA shared AUTHORIZATION regress_zdm_group;
GRANT USAGE ON SCHEMA alice, bob, shared TO PUBLIC;

-- PUBLIC has nothing
SET SESSION AUTHORIZATION regress_zdm_alice;
CREATE TABLE alice.own (id int PRIMARY KEY, v int, w int);
INSERT INTO alice.own SELECT generate_series(1, 100);
SELECT t.try($$SELECT zdm.start_backfill('alice.own', 'v = id')$$);
SELECT t.code($$SELECT zdm.pause(1)$$), t.code($$SELECT * FROM zdm.jobs$$), t.code($$SELECT * FROM zdm.job$$),
       t.code($$CALL zdm.wait(1)$$), t.code($$SELECT zdm.require('x')$$), t.code($$SELECT zdm._home()$$);
RESET SESSION AUTHORIZATION;
GRANT USAGE ON SCHEMA zdm TO regress_zdm_alice, regress_zdm_bob, regress_zdm_group, regress_zdm_monitor, regress_zdm_operator;

-- a plain role works on its own tables
SET SESSION AUTHORIZATION regress_zdm_alice;
CALL t.backfill('alice.own', 'v = id', NULL, name => 'of alice');
SELECT zdm.start_backfill('alice.own', 'v = 1 / (id - 50)', 'v = id', name => 'alice failing', on_error => 'skip') > 0;
SELECT t.outcome('alice failing');
SELECT zdm.start_backfill('alice.own', 'v = 0', name => 'alice paused', paused => true) > 0;
SELECT name, owner, state FROM zdm.jobs WHERE job_id > :before ORDER BY job_id;
SELECT job, state FROM zdm.progress ORDER BY job_id;
SELECT count(*) > 0, count(*) FILTER (WHERE job_id <= :before) FROM zdm.job_log;
SELECT relation, key FROM zdm.job_errors;
SELECT zdm.alter_job(t.job('alice paused'), batch_time => '10 ms');
-- the tables themselves are nobody's
SELECT c.relname, string_agg(t.code(format(what, c.relname)), ' ' ORDER BY i)
FROM pg_class c, unnest(ARRAY['SELECT * FROM zdm.%I', 'INSERT INTO zdm.%I DEFAULT VALUES', 'DELETE FROM zdm.%I', 'TRUNCATE zdm.%I',
                              'LOCK TABLE zdm.%I IN ACCESS SHARE MODE', 'ALTER TABLE zdm.%I ADD x int', 'DROP TABLE zdm.%I',
                              'CREATE TRIGGER x AFTER INSERT ON zdm.%1$I EXECUTE FUNCTION suppress_redundant_updates_trigger()']) WITH ORDINALITY q(what, i)
WHERE c.relnamespace = 'zdm'::regnamespace AND c.relkind = 'r' GROUP BY 1 ORDER BY 1;
SELECT t.code($$SELECT nextval('zdm.job_id_seq')$$), t.code($$SELECT setval('zdm.job_id_seq', 1)$$), t.code($$SELECT * FROM zdm._visible_job$$),
       t.code($$UPDATE zdm.jobs SET state = 'x'$$), t.code($$DELETE FROM zdm.job_log$$), t.code($$CREATE TABLE zdm.mine ()$$),
       t.code($$ALTER FUNCTION zdm.pause(bigint) OWNER TO regress_zdm_alice$$), t.code($$DROP EXTENSION zdm_ext$$);

-- nobody else sees it
SET SESSION AUTHORIZATION regress_zdm_bob;
SELECT (SELECT count(*) FROM zdm.jobs), (SELECT count(*) FROM zdm.progress), (SELECT count(*) FROM zdm.job_log), (SELECT count(*) FROM zdm.job_errors);
CREATE FUNCTION bob.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN RAISE WARNING 'leaked %', $1; RETURN true; END $$;
SELECT count(*) FROM zdm.jobs WHERE bob.leak(name);
SELECT count(*) FROM zdm.job_log WHERE bob.leak(message);
SELECT count(*) FROM zdm.job_errors WHERE bob.leak(message);
SELECT count(*) FROM zdm.progress WHERE bob.leak(job);
SELECT t.refused($$SELECT zdm.pause(t.job('alice paused'))$$);
SELECT t.refused($$SELECT zdm.resume(t.job('alice paused'))$$);
SELECT t.refused($$SELECT zdm.cancel(t.job('alice paused'))$$);
SELECT t.refused($$SELECT zdm.retry(t.job('alice failing'))$$);
SELECT t.refused($$SELECT zdm.alter_job(t.job('alice paused'), batch_time => '1 s')$$);
SELECT t.refused($$SELECT zdm.pause_all()$$);
SELECT t.refused($$SELECT zdm.resume_all()$$);
SELECT t.job('alice paused') AS job \gset
\set VERBOSITY sqlstate
CALL zdm.wait(:job, timeout => '0');
\set VERBOSITY default
CREATE TABLE bob.own (id int PRIMARY KEY, v int);
INSERT INTO bob.own SELECT generate_series(1, 10);
SELECT t.refused($$SELECT zdm.start_backfill('bob.own', 'v = 1', depends_on => ARRAY[t.job('alice paused')])$$);
-- pg_monitor sees all, controls none
SET SESSION AUTHORIZATION regress_zdm_monitor;
SELECT name, owner, state FROM zdm.jobs WHERE job_id > :before ORDER BY job_id;
SELECT count(*) > 0 FROM zdm.job_log WHERE job_id = :job;
SELECT count(*) FROM zdm.job_errors WHERE job_id > :before;
SELECT t.refused($$SELECT zdm.pause(t.job('alice paused'))$$);
SELECT t.refused($$SELECT zdm.cancel(t.job('alice paused'))$$);
SELECT t.refused($$SELECT zdm.alter_job(t.job('alice paused'), batch_time => '1 s')$$);
SELECT t.refused($$SELECT zdm.pause_all()$$);
-- pg_signal_backend controls all
SET SESSION AUTHORIZATION regress_zdm_operator;
SELECT zdm.pause(t.job('alice paused')), zdm.cancel(t.job('alice paused')), zdm.retry(t.job('alice paused'));
SELECT t.outcome('alice paused');
SELECT zdm.pause_all();
SELECT zdm.resume_all();
RESET SESSION AUTHORIZATION;
SELECT count(*) FROM alice.own WHERE v = 0;

-- no privilege: said at the call, with a hint
CREATE TABLE shared.granted (id int PRIMARY KEY, v int, w int);
INSERT INTO shared.granted SELECT generate_series(1, 10);
ALTER TABLE shared.granted OWNER TO regress_zdm_group;
CREATE TABLE shared.secret (id int PRIMARY KEY, v int);
CREATE FUNCTION shared.secret() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION shared.secret() FROM PUBLIC;
CREATE SCHEMA closed;
CREATE TABLE closed.t (id int, v int);
GRANT ALL ON closed.t TO PUBLIC;
SET SESSION AUTHORIZATION regress_zdm_bob;
SELECT t.refused($$SELECT zdm.start_backfill('shared.granted', 'v = id')$$);
RESET SESSION AUTHORIZATION;
GRANT UPDATE (v) ON shared.granted TO regress_zdm_bob;
SET SESSION AUTHORIZATION regress_zdm_bob;
SELECT t.refused($$SELECT zdm.start_backfill('shared.granted', 'v = 1', 'true')$$);
RESET SESSION AUTHORIZATION;
GRANT SELECT (id, v) ON shared.granted TO regress_zdm_bob;
SET SESSION AUTHORIZATION regress_zdm_bob;
SELECT t.refused($$SELECT zdm.start_backfill('shared.granted', 'v = id')$$);
RESET SESSION AUTHORIZATION;
GRANT SELECT ON shared.granted TO regress_zdm_bob;
SET SESSION AUTHORIZATION regress_zdm_bob;
CALL t.backfill('shared.granted', 'v = id');
SELECT t.refused($$SELECT zdm.start_backfill('shared.granted', 'w = id')$$);
SELECT t.refused($$SELECT zdm.start_backfill('shared.granted', 'v = (SELECT max(v) FROM shared.secret)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('shared.granted', 'v = 1', 'id NOT IN (SELECT id FROM shared.secret)')$$);
SELECT t.refused($$SELECT zdm.start_backfill('shared.granted', 'v = shared.secret()')$$);
SELECT t.refused(format('SELECT zdm.start_backfill(%s, ''v = 1'')', c.oid)) FROM pg_class c WHERE c.relnamespace = 'closed'::regnamespace AND relname = 't';
SELECT t.refused(format('SELECT zdm.start_backfill(%s, ''rolsuper = true'')', 'pg_authid'::regclass::oid));
RESET SESSION AUTHORIZATION;
DROP SCHEMA closed CASCADE;

-- a job is its current role's, connected as its session's: NOLOGIN owners work
CREATE TABLE shared.who (id int PRIMARY KEY, v int, who name, session name);
INSERT INTO shared.who SELECT generate_series(1, 3);
CREATE FUNCTION shared.who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.who := current_user;
    NEW.session := session_user;
    RETURN NEW;
END $$;
CREATE TRIGGER who BEFORE UPDATE ON shared.who FOR EACH ROW EXECUTE FUNCTION shared.who();
ALTER TABLE shared.who OWNER TO regress_zdm_group;
SET SESSION AUTHORIZATION regress_zdm_alice;
SET ROLE regress_zdm_group;
CALL t.backfill('shared.who', 'v = 1', NULL, name => 'as the group');
RESET ROLE;
SELECT owner FROM zdm.jobs WHERE name = 'as the group';
SELECT DISTINCT who, session FROM shared.who;
CALL t.backfill('shared.who', 'v = 2', NULL, name => 'as a member');
SELECT DISTINCT who, session FROM shared.who;
-- a member controls the group's jobs
SET ROLE regress_zdm_group;
SELECT zdm.start_backfill('shared.who', 'v = 3', name => 'of the group', paused => true) > 0;
RESET ROLE;
SELECT zdm.resume(t.job('of the group'));
SELECT t.outcome('of the group');
RESET SESSION AUTHORIZATION;
SET ROLE regress_zdm_group;
CALL t.backfill('shared.who', 'v = 4');
RESET ROLE;
SELECT DISTINCT who, session = :'me' FROM shared.who;
-- a membership that is revoked while the job is paused ends it, before anything is done
SET SESSION AUTHORIZATION regress_zdm_alice;
SET ROLE regress_zdm_group;
SELECT zdm.start_backfill('shared.who', 'v = 5', name => 'membership revoked', paused => true) > 0;
RESET SESSION AUTHORIZATION;
REVOKE regress_zdm_group FROM regress_zdm_alice;
SELECT zdm.resume(t.job('membership revoked'));
SELECT split_part(t.outcome('membership revoked'), ':', 1), count(*) FILTER (WHERE v = 5) FROM shared.who;
GRANT regress_zdm_group TO regress_zdm_alice;
SELECT zdm.retry(t.job('membership revoked'));
SELECT t.outcome('membership revoked');

-- SECURITY DEFINER lends nobody a job
CREATE FUNCTION shared.definer() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
$$ SELECT zdm.start_backfill('alice.own', 'v = 99', name => 'definer') $$;
SET SESSION AUTHORIZATION regress_zdm_alice;
SELECT regexp_replace(t.refused('SELECT shared.definer()'), 'become role "[^"]*"', 'become role "..."');
RESET SESSION AUTHORIZATION;
ALTER FUNCTION shared.definer() OWNER TO regress_zdm_bob;
SET SESSION AUTHORIZATION regress_zdm_alice;
SELECT t.refused('SELECT shared.definer()');
RESET SESSION AUTHORIZATION;
-- whoever may become the definer may enqueue as it
ALTER FUNCTION shared.definer() OWNER TO regress_zdm_group;
GRANT SELECT, UPDATE ON alice.own TO regress_zdm_group;
GRANT USAGE ON SCHEMA alice TO regress_zdm_group;
SET SESSION AUTHORIZATION regress_zdm_alice;
SELECT shared.definer() > 0;
SELECT t.outcome('definer');
SELECT owner FROM zdm.jobs WHERE name = 'definer';

-- a role that cannot log in, or is gone: its jobs wait, and say so
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION regress_zdm_alice;
SELECT zdm.start_backfill('alice.own', 'w = 1', name => 'no login', paused => true) > 0;
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_zdm_alice NOLOGIN;
SELECT zdm.resume(t.job('no login'));
SELECT state, waiting_for FROM zdm.jobs WHERE name = 'no login';
ALTER ROLE regress_zdm_alice LOGIN;
SELECT zdm.resume(t.job('no login'));
SELECT t.outcome('no login');

CREATE ROLE regress_zdm_gone LOGIN;
GRANT USAGE ON SCHEMA zdm, alice TO regress_zdm_gone;
GRANT SELECT, UPDATE ON alice.own TO regress_zdm_gone;
SET SESSION AUTHORIZATION regress_zdm_gone;
SELECT zdm.start_backfill('alice.own', 'w = 2', name => 'role gone', paused => true) > 0;
RESET SESSION AUTHORIZATION;
DROP OWNED BY regress_zdm_gone;
DROP ROLE regress_zdm_gone;
SELECT zdm.resume(t.job('role gone'));
SELECT state, owner, waiting_for FROM zdm.jobs WHERE name = 'role gone';
SELECT zdm.cancel(t.job('role gone'));
SELECT t.outcome('role gone');

-- what the role's defaults would do to a job
ALTER ROLE regress_zdm_alice SET statement_timeout = '1 ms';
ALTER ROLE regress_zdm_alice SET lock_timeout = '1 ms';
ALTER ROLE regress_zdm_alice SET idle_in_transaction_session_timeout = '1 ms';
ALTER ROLE regress_zdm_alice SET default_transaction_read_only = on;
ALTER ROLE regress_zdm_alice SET default_transaction_isolation = 'serializable';
ALTER ROLE regress_zdm_alice SET default_transaction_deferrable = on;
ALTER ROLE regress_zdm_alice SET search_path = bob;
ALTER ROLE regress_zdm_alice SET row_security = off;
ALTER ROLE regress_zdm_alice SET TimeZone = 'Asia/Tokyo';
ALTER ROLE regress_zdm_alice SET enable_seqscan = off;
ALTER ROLE regress_zdm_alice SET enable_tidscan = off;
ALTER ROLE regress_zdm_alice SET plan_cache_mode = force_custom_plan;
ALTER ROLE regress_zdm_alice SET work_mem = '64kB';
ALTER ROLE regress_zdm_alice SET constraint_exclusion = on;
SET SESSION AUTHORIZATION regress_zdm_alice;
SET search_path = alice;
CREATE TABLE alice.slow (id int PRIMARY KEY, at timestamptz DEFAULT '2026-01-01 00:00+00', v text);
INSERT INTO alice.slow SELECT generate_series(1, 100);
CREATE FUNCTION alice.slowly(t timestamptz) RETURNS text LANGUAGE sql AS 'SELECT t::text FROM pg_sleep(0.0005)';
CALL t.backfill('slow', 'v = slowly(at)', 'v IS NULL');
SELECT DISTINCT v = at::text FROM alice.slow;
RESET search_path;
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_zdm_alice RESET ALL;

-- hostile code in a job: the role is the group, the session a superuser's, or alice's
CREATE TABLE shared.said (phase text, what text, outcome text, who name);
GRANT ALL ON shared.said TO PUBLIC;
CREATE FUNCTION shared.attempt(phase text, what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE what;
        INSERT INTO shared.said VALUES (phase, what, 'done', current_user);
    EXCEPTION WHEN OTHERS THEN
        INSERT INTO shared.said VALUES (phase, what, SQLSTATE, current_user);
    END;
END $$;
CREATE FUNCTION shared.attempts(phase text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    what text;
BEGIN
    FOREACH what IN ARRAY ARRAY[
        'RESET ROLE', 'SET ROLE NONE', 'SET ROLE regress_zdm_bob', 'SET LOCAL ROLE NONE', 'SET SESSION AUTHORIZATION DEFAULT',
        'SET SESSION AUTHORIZATION regress_zdm_bob', 'RESET SESSION AUTHORIZATION', 'SELECT set_config(''role'', ''none'', false)',
        'SELECT set_config(''session_authorization'', ''regress_zdm_bob'', true)', 'RESET ALL', 'DISCARD ALL',
        'SELECT * FROM zdm.job', 'UPDATE zdm.job SET owner = 10', 'UPDATE zdm.job_run SET state = ''succeeded''', 'DELETE FROM zdm.job_slice',
        'SELECT rolpassword FROM pg_authid', 'CREATE ROLE regress_zdm_new SUPERUSER', 'ALTER ROLE regress_zdm_group SUPERUSER',
        'SELECT pg_read_file(''PG_VERSION'')', 'COPY shared.said TO PROGRAM ''true''', 'UPDATE pg_class SET relname = relname',
        'SELECT zdm.cancel(t.job(''of alice''))', 'SELECT zdm.pause_all()', 'SELECT nextval(''zdm.job_id_seq'')',
        'SELECT set_config(''session_replication_role'', ''replica'', true)', 'COMMIT', 'ROLLBACK'] LOOP
        PERFORM shared.attempt(phase, what);
    END LOOP;
END $$;
CREATE FUNCTION shared.at_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM shared.attempts(TG_ARGV[0]);
    RETURN NEW;
END $$;
CREATE TABLE shared.trap (id int PRIMARY KEY, v int, w int);
INSERT INTO shared.trap VALUES (1), (2);
ALTER TABLE shared.trap OWNER TO regress_zdm_group;
CREATE TRIGGER before BEFORE UPDATE ON shared.trap FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION shared.at_trigger('before');
CREATE CONSTRAINT TRIGGER deferred AFTER UPDATE ON shared.trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION shared.at_trigger('deferred');
CREATE FUNCTION shared.hostile(i int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    IF i = 1 THEN
        PERFORM shared.attempts('set_clause');
    END IF;
    RETURN i;
END $$;
CREATE FUNCTION shared.said() RETURNS TABLE (who name, what text, outcome text) LANGUAGE sql AS $$
    SELECT who, what, CASE WHEN count(*) = 3 THEN '' ELSE string_agg(phase, ',' ORDER BY phase) || ' ' END || string_agg(DISTINCT outcome, ',')
    FROM shared.said GROUP BY who, what ORDER BY who, what COLLATE "C"
$$;
SET ROLE regress_zdm_group;
CALL t.backfill('shared.trap', 'v = shared.hostile(id)', 'v IS NULL', name => 'hostile to a superuser');
RESET ROLE;
SELECT * FROM shared.said();
TRUNCATE shared.said;
UPDATE shared.trap SET v = NULL WHERE id = 2;
ALTER TABLE shared.trap DISABLE TRIGGER ALL;
UPDATE shared.trap SET v = NULL;
ALTER TABLE shared.trap ENABLE TRIGGER ALL;
TRUNCATE shared.said;
SET SESSION AUTHORIZATION regress_zdm_alice;
SET ROLE regress_zdm_group;
CALL t.backfill('shared.trap', 'v = shared.hostile(id)', 'v IS NULL', name => 'hostile to alice');
RESET SESSION AUTHORIZATION;
SELECT who, what, outcome FROM shared.said() WHERE outcome NOT LIKE '42501%';
SELECT rolname FROM pg_roles WHERE rolname LIKE 'regress_zdm_new' OR rolname = 'regress_zdm_group' AND rolsuper;
SELECT state FROM zdm.jobs WHERE name = 'of alice';
-- a deferred trigger that defers once more, and a cursor that the commit runs
CREATE FUNCTION shared.held() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shared.said VALUES ('cursor', 'commit', session_user, current_user);
END $$;
CREATE FUNCTION shared.again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shared.said VALUES ('depth ' || NEW.w, 'deferred', session_user, current_user);
    IF NEW.w = 0 THEN
        EXECUTE format('DECLARE %I CURSOR WITH HOLD FOR SELECT shared.held()', 'held ' || NEW.id);
    END IF;
    IF NEW.w < 3 THEN
        SET CONSTRAINTS ALL DEFERRED;
        UPDATE shared.trap SET w = w + 1 WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER before ON shared.trap;
DROP TRIGGER deferred ON shared.trap;
CREATE CONSTRAINT TRIGGER again AFTER UPDATE ON shared.trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shared.again();
TRUNCATE shared.said;
SET SESSION AUTHORIZATION regress_zdm_alice;
SET ROLE regress_zdm_group;
CALL t.backfill('shared.trap', 'w = 0', 'w IS NULL');
RESET SESSION AUTHORIZATION;
SELECT phase, count(*), min(who), max(who), min(outcome) FROM shared.said GROUP BY 1 ORDER BY 1;
DROP TRIGGER again ON shared.trap;

-- operators, casts and functions ahead of pg_catalog's in the search_path are never called by the bookkeeping
CREATE SCHEMA evil AUTHORIZATION regress_zdm_alice;
CREATE TABLE shared.called (what text, who name);
GRANT ALL ON shared.called TO PUBLIC;
SET SESSION AUTHORIZATION regress_zdm_alice;
SET search_path = evil, pg_catalog;
CREATE FUNCTION evil.note(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO shared.called VALUES (what, current_user); END $$;
CREATE FUNCTION evil.plus(bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('plus'); RETURN int8pl($1, $2); END $$;
CREATE OPERATOR evil.+ (FUNCTION = evil.plus, LEFTARG = bigint, RIGHTARG = bigint);
CREATE FUNCTION evil.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('equal'); RETURN int8eq($1, $2); END $$;
CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = bigint, RIGHTARG = bigint);
CREATE FUNCTION evil.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('text equal'); RETURN texteq($1, $2); END $$;
CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION evil.equal(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('oid equal'); RETURN oideq($1, $2); END $$;
CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = oid, RIGHTARG = oid);
CREATE FUNCTION evil.equal(tid, tid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('tid equal'); RETURN tideq($1, $2); END $$;
CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = tid, RIGHTARG = tid);
CREATE FUNCTION evil.ge(tid, tid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('tid ge'); RETURN tidge($1, $2); END $$;
CREATE OPERATOR evil.>= (FUNCTION = evil.ge, LEFTARG = tid, RIGHTARG = tid);
CREATE FUNCTION evil.concat(jsonb, jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('concat'); RETURN jsonb_concat($1, $2); END $$;
CREATE OPERATOR evil.|| (FUNCTION = evil.concat, LEFTARG = jsonb, RIGHTARG = jsonb);
CREATE FUNCTION evil.coalesce(bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('coalesce'); RETURN $1; END $$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('clock_timestamp'); RETURN pg_catalog.clock_timestamp(); END $$;
CREATE FUNCTION evil.jsonb_object(text[], text[]) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('jsonb_object'); RETURN pg_catalog.jsonb_object($1, $2); END $$;
CREATE DOMAIN evil.text AS pg_catalog.text CHECK (VALUE <> 'never');
CREATE TABLE evil.job (job_id bigint);
CREATE TABLE evil.job_run (job_id bigint);
CREATE TYPE evil.grade AS ENUM ('a', 'b', 'c');
CREATE FUNCTION evil.to_json(evil.grade) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('cast to json'); RETURN '"cast"'::json; END $$;
CREATE CAST (evil.grade AS json) WITH FUNCTION evil.to_json(evil.grade);
CREATE FUNCTION evil.indexed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM evil.note('index'); RETURN $1; END $$;
CREATE FUNCTION evil.checked(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.note('check'); RETURN true; END $$;
CREATE TABLE alice.prey (grade evil.grade PRIMARY KEY, n int, v int, CHECK (evil.checked(v)));
CREATE INDEX ON alice.prey (evil.indexed(n));
INSERT INTO alice.prey VALUES ('a', 1), ('b', 0), ('c', 2);
RESET SESSION AUTHORIZATION;
DELETE FROM shared.called;
SET SESSION AUTHORIZATION regress_zdm_alice;
SET search_path = evil, pg_catalog;
SELECT zdm.start_backfill('alice.prey', 'v = 10 / n', 'v IS NULL', name => 'prey', on_error => 'skip') OPERATOR(pg_catalog.>) 0;
SELECT t.outcome('prey');
SELECT key FROM t.row_errors('prey');
UPDATE alice.prey SET n = 5 WHERE grade OPERATOR(pg_catalog.=) 'b';
SELECT zdm.retry(t.job('prey'));
SELECT t.outcome('prey');
SELECT zdm.start_backfill('alice.prey', 'v = v + 100', 'v < 100', name => 'prey 2', paused => true, depends_on => ARRAY[t.job('prey')]) OPERATOR(pg_catalog.>) 0;
SELECT zdm.alter_job(t.job('prey 2'), batch_time => '20 ms'), zdm.pause(t.job('prey 2')), zdm.resume(t.job('prey 2'));
SELECT t.outcome('prey 2');
SELECT count(*) OPERATOR(pg_catalog.>) 3 FROM zdm.jobs;
SELECT zdm.require('prey');
RESET search_path;
RESET SESSION AUTHORIZATION;
-- all of them as alice, who called them
SELECT DISTINCT what, who FROM shared.called ORDER BY 1, 2;
SELECT v FROM alice.prey ORDER BY 1;

-- code that gives locks away, and leaves settings behind
CREATE TABLE alice.loose (id int PRIMARY KEY, v int, writes int NOT NULL DEFAULT 0);
INSERT INTO alice.loose SELECT generate_series(1, 2000);
CREATE FUNCTION alice.loosen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.writes := OLD.writes + 1;
    IF NEW.id % 200 = 0 THEN
        PERFORM pg_advisory_unlock_all();
        PERFORM set_config('search_path', 'pg_temp, nowhere', false);
        PERFORM set_config('statement_timeout', '1', false);
        PERFORM set_config('lock_timeout', '1', false);
        PERFORM set_config('default_transaction_read_only', 'on', false);
        PERFORM set_config('default_transaction_isolation', 'serializable', false);
        PERFORM set_config('row_security', 'off', false);
        PERFORM set_config('enable_tidscan', 'off', false);
        PERFORM set_config('TimeZone', 'Asia/Tokyo', false);
        PERFORM set_config('synchronous_commit', 'off', false);
        PERFORM set_config('application_name', 'mine', false);
        PERFORM set_config('zdm.batch_time', '7 ms', false);
        CREATE TEMP TABLE IF NOT EXISTS job (job_id bigint) ON COMMIT DROP;
        NOTIFY something;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER loosen BEFORE UPDATE ON alice.loose FOR EACH ROW EXECUTE FUNCTION alice.loosen();
ALTER TABLE alice.loose OWNER TO regress_zdm_alice;
SET SESSION AUTHORIZATION regress_zdm_alice;
SELECT zdm.start_backfill('alice.loose', 'v = id', name => 'loose', batch_time => '3 ms') > 0;
SELECT t.outcome('loose');
SELECT attempts FROM zdm.jobs WHERE name = 'loose';
SELECT count(*) FILTER (WHERE v = id AND writes = 1) FROM alice.loose;
RESET SESSION AUTHORIZATION;

-- nothing of it reaches the next job, which the same process runs
CREATE TABLE alice.next (id int PRIMARY KEY, v text);
INSERT INTO alice.next VALUES (1);
ALTER TABLE alice.next OWNER TO regress_zdm_alice;
CREATE FUNCTION alice.leave() RETURNS text LANGUAGE sql AS $$
    SELECT set_config('my.variable', 'left behind', false) || set_config('work_mem', '65kB', false) || set_config('application_name', 'mine', false)
$$;
CREATE FUNCTION alice.look() RETURNS text LANGUAGE sql AS $$
    SELECT format('%s, %s, %s', current_setting('my.variable', true), current_setting('work_mem'), current_setting('application_name'))
$$;
SET SESSION AUTHORIZATION regress_zdm_alice;
BEGIN;
SELECT zdm.start_backfill('alice.next', 'v = alice.leave()', 'v IS NULL', name => 'leaves settings') > 0;
SELECT zdm.start_backfill('alice.next', 'v = alice.look()', 'v = ''left behind65kBmine''', name => 'looks', depends_on => ARRAY[t.job('leaves settings')]) > 0;
COMMIT;
SELECT t.outcome('leaves settings');
SELECT t.outcome('looks');
RESET SESSION AUTHORIZATION;
SELECT v NOT LIKE '%left behind%' AND v NOT LIKE '%65kB%' AND v NOT LIKE '%mine%' FROM alice.next;

-- texts that look like formats, or are long, survive as they are
CREATE TABLE alice."{} %s %n {0}" (id int PRIMARY KEY, v int);
INSERT INTO alice."{} %s %n {0}" VALUES (1);
CREATE FUNCTION alice.complain(int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RAISE '%', E'{} %s %n {0:d} "quoted" \\ é \n second line' USING ERRCODE = 'ZZ000', DETAIL = '{} %d', HINT = '%s{}';
END $$;
CALL t.backfill('alice."{} %s %n {0}"', 'v = alice.complain(id) /* {} %s */', 'v IS NULL /* %n {} */', name => 'formats {} %s');
SELECT * FROM t.row_errors('formats {} %s');
SELECT definition FROM zdm.jobs WHERE name = 'formats {} %s';
CREATE FUNCTION alice.go_on(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE '%', repeat('x', 1000000); END $$;
SELECT zdm.start_backfill('alice."{} %s %n {0}"', 'v = alice.go_on(id)', 'v IS NULL', name => 'long') > 0;
SELECT left(t.outcome('long'), 30);
SELECT left(message, 10) FROM t.row_errors('long');

DROP SCHEMA alice, bob, shared, evil CASCADE;
DROP OWNED BY regress_zdm_alice, regress_zdm_bob, regress_zdm_group, regress_zdm_monitor, regress_zdm_operator;
-- a role that is gone: its jobs are history, or wait for a hand
DROP ROLE regress_zdm_alice, regress_zdm_bob, regress_zdm_group, regress_zdm_monitor, regress_zdm_operator;
SELECT name, owner FROM zdm.jobs WHERE name = 'of alice';
SELECT count(*) FROM zdm.jobs WHERE job_id > :before AND state NOT IN ('succeeded', 'failed', 'cancelled');
