-- The SQL face of the checks. Schema boundary, owner: a superuser.
\echo Use "CREATE EXTENSION zdm_boundary" to load this file. \quit

GRANT USAGE ON SCHEMA boundary TO PUBLIC;

CREATE FUNCTION pass(sql text, depth integer) RETURNS text STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_pass';
CREATE FUNCTION throws(kind text) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_throws';
CREATE FUNCTION handled(sql text) RETURNS text STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_handled';
CREATE FUNCTION live() RETURNS bigint LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_live';
CREATE FUNCTION died() RETURNS bigint LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_died';
CREATE FUNCTION rss() RETURNS bigint LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_rss';
CREATE FUNCTION sanitized() RETURNS boolean LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_sanitized';
CREATE FUNCTION parameters(n integer) RETURNS text STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_parameters';

CREATE FUNCTION linger(id bigint, path text) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_linger';
CREATE FUNCTION remove(path text) RETURNS boolean STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_remove';

CREATE FUNCTION lock_take(id bigint) RETURNS boolean STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_lock_take';
CREATE FUNCTION lock_hold(id bigint) RETURNS boolean STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_lock_hold';
CREATE FUNCTION lock_reassert(id bigint) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_lock_reassert';
CREATE FUNCTION lock_recover(id bigint) RETURNS boolean STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_lock_recover';
CREATE FUNCTION lock_release(id bigint) RETURNS boolean STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_lock_release';
CREATE FUNCTION lock_other(id bigint) RETURNS boolean STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_lock_other';
CREATE FUNCTION lock_try(id bigint, mode integer) RETURNS boolean STRICT
    LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_lock_try';

CREATE FUNCTION witness(what text) RETURNS void STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_witness';
CREATE FUNCTION run_worker(task bigint, session oid, role oid) RETURNS void STRICT
    LANGUAGE c AS 'MODULE_PATHNAME', 'boundary_run_worker';

-- Everybody may say who he is and raise errors; the rest is for the tests' own session.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA boundary FROM PUBLIC;
GRANT EXECUTE ON FUNCTION witness(text), pass(text, integer), handled(text) TO PUBLIC;

-- One line of TAP; the caller numbers them.
CREATE FUNCTION ok(passed boolean, name text, diagnostic text DEFAULT '') RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN passed THEN 'ok - ' || name
                ELSE 'not ok - ' || name || replace(E'\n' || coalesce(diagnostic, 'NULL'), E'\n', E'\n  ') END
$$;
CREATE FUNCTION eq(got text, expected text, name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT boundary.ok(got IS NOT DISTINCT FROM expected, name, format(E'got:      %s\nexpected: %s', got, expected))
$$;

-- Has this lock a holder, and in which mode, as everybody can see it?
CREATE FUNCTION lock_shown(id bigint) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(locktype || ' ' || mode || ' ' || granted, ', ' ORDER BY mode)
    FROM pg_catalog.pg_locks
    WHERE objsubid = x'5A01'::integer AND classid = (id >> 32)::oid AND objid = (id & 4294967295)::oid
      AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
$$;

-- What one worker is asked to do, what came of it, and the bookkeeping row it changes.
CREATE TABLE task (
    task bigint PRIMARY KEY,
    name text NOT NULL,
    path text NOT NULL,
    sql text NOT NULL,
    mode text NOT NULL DEFAULT '',
    batches integer NOT NULL DEFAULT 1,
    ended boolean NOT NULL DEFAULT false,
    sqlstate text, message text, detail text, hint text, context text
);
CREATE TABLE ledger (
    task bigint PRIMARY KEY,
    n bigint NOT NULL DEFAULT 0,
    seen text, extensions bigint, xid xid8, who text, first_at timestamptz, last_at timestamptz
);
CREATE SEQUENCE task_id;
