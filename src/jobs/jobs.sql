-- jobs: tables, control functions. The first room of the extension's script.
\echo Use "CREATE EXTENSION zdm_ext" to load this file. \quit

-- ------------------------------------------------------------------------------------------------
-- Tables. Granted to nobody: the library reads and writes them as the extension's owner, people see
-- views. What a session writes (a request) and what a runner writes (progress) are rows of different
-- tables, so that a batch never waits for a row that an open transaction holds.
-- ------------------------------------------------------------------------------------------------

COMMENT ON SCHEMA zdm IS 'zdm_ext: online schema changes. Views: jobs, progress, job_log, job_errors. GRANT USAGE on this schema lets a role enqueue jobs on its own tables.';

CREATE SEQUENCE zdm.job_id_seq;

-- What a job is. Written once, when it is enqueued.
CREATE TABLE zdm.job (
    job_id            bigint PRIMARY KEY DEFAULT nextval('zdm.job_id_seq'),
    kind              text NOT NULL,
    name              text,
    relation          oid,                      -- a plain oid: a dropped relation must not break the history
    relation_name     text,
    definition        jsonb NOT NULL,           -- what the kind needs to run; equal definitions are the same job
    statement         text NOT NULL,            -- the same for people
    session_role      oid NOT NULL,             -- the worker connects as this role ...
    session_role_name text NOT NULL,
    owner             oid NOT NULL,             -- ... and becomes this one
    owner_name        text NOT NULL,
    settings          jsonb NOT NULL,           -- the session's search_path and what else decides what an expression means
    options           jsonb NOT NULL,           -- pace, captured at the call
    depends_on        bigint[] NOT NULL DEFAULT '{}',
    change_id         bigint,
    home              text NOT NULL,            -- the server, database and extension it was enqueued in: a copy differs
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What people ask of a job. Written by sessions.
CREATE TABLE zdm.job_control (
    job_id       bigint PRIMARY KEY,
    request      text NOT NULL DEFAULT 'run' CHECK (request IN ('run', 'pause', 'cancel')),
    options      jsonb NOT NULL DEFAULT '{}',   -- zdm.alter_job
    requested_by text,
    requested_at timestamptz
);

-- How far it is. Written by the runner that holds the job's lock, or, while no runner does, by a session
-- that holds it.
CREATE TABLE zdm.job_run (
    job_id            bigint PRIMARY KEY,
    state             text NOT NULL DEFAULT 'queued'
                      CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    phase             text,
    epoch             bigint NOT NULL DEFAULT 0,  -- one more each time a runner takes the job: an old runner's writes miss
    pid               integer,
    attempts          integer NOT NULL DEFAULT 0, -- times a runner took it
    failures          integer NOT NULL DEFAULT 0, -- errors in a row, without progress between
    interruptions     integer NOT NULL DEFAULT 0, -- vanished processes in a row, without progress between
    progress_mark     bigint NOT NULL DEFAULT 0,  -- batches committed when a runner took it last
    not_before        timestamptz,
    waiting_for       text,
    error             jsonb,                      -- sqlstate, message, detail, hint, context
    failed_dependency bigint,
    rows_total        bigint,
    started_at        timestamptz,
    finished_at       timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- The parts of a relation that a job works through, with their cursors: one row is written by each batch, in the
-- batch's own transaction. Positions are block * positions_per_block + line pointer.
CREATE TABLE zdm.job_slice (
    job_id           bigint NOT NULL,
    slice_no         integer NOT NULL,
    relation         oid NOT NULL,
    relation_file    oid NOT NULL,              -- the relfilenode the positions are valid for
    next_position    bigint NOT NULL DEFAULT 0,
    end_position     bigint NOT NULL,
    epoch            bigint NOT NULL DEFAULT 0,
    rows_done        bigint NOT NULL DEFAULT 0,
    rows_skipped     bigint NOT NULL DEFAULT 0,
    batches          bigint NOT NULL DEFAULT 0,
    wal_bytes        bigint NOT NULL DEFAULT 0,
    busy_ms          double precision NOT NULL DEFAULT 0,
    last_progress_at timestamptz,
    PRIMARY KEY (job_id, slice_no)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE zdm.job_event (
    job_id   bigint NOT NULL,
    event_no bigint GENERATED ALWAYS AS IDENTITY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    event    text NOT NULL,
    message  text,
    PRIMARY KEY (job_id, event_no)
);

CREATE TABLE zdm.job_row_error (
    job_id        bigint NOT NULL,
    relation      oid NOT NULL,
    relation_name text NOT NULL,                -- what a copy of the database knows it by
    key           jsonb NOT NULL,
    sqlstate      text NOT NULL,
    message       text NOT NULL,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (job_id, relation, key)
);

-- Names are kept longer than the history of their jobs: a migration file may run again after a year. In a copy of the
-- database (home differs) relation and owner are known by their names, for their oids are others.
CREATE TABLE zdm.job_name (
    name          text PRIMARY KEY,
    job_id        bigint NOT NULL,
    kind          text NOT NULL,
    relation      oid,
    relation_name text,
    definition    jsonb NOT NULL,
    owner         oid NOT NULL,
    owner_name    text NOT NULL,
    home          text NOT NULL,
    succeeded_at  timestamptz
);

-- zdm.pause_all(): at most one row.
CREATE TABLE zdm.job_hold (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    held_by  text NOT NULL,
    held_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

SELECT pg_catalog.pg_extension_config_dump('zdm.job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job_control', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job_run', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job_slice', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job_event', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job_event_event_no_seq', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job_row_error', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job_name', '');
SELECT pg_catalog.pg_extension_config_dump('zdm.job_hold', '');

-- A publication FOR ALL TABLES covers an extension's tables as well, and a subscriber that does not have them would
-- stop. Logical decoding skips relations that are marked as the product of a rewrite (pg_class.relrewrite; nothing
-- else reads the mark of an ordinary table), so these are.
UPDATE pg_catalog.pg_class c SET relrewrite = c.oid
WHERE c.relkind IN ('r', 't')
  AND (c.relnamespace = 'zdm'::pg_catalog.regnamespace
       OR c.oid IN (SELECT t.reltoastrelid FROM pg_catalog.pg_class t
                    WHERE t.relnamespace = 'zdm'::pg_catalog.regnamespace));

-- ------------------------------------------------------------------------------------------------
-- Control. Every function is C without SECURITY DEFINER: it sees who calls, checks, and writes as the
-- extension's owner inside.
-- ------------------------------------------------------------------------------------------------

CREATE FUNCTION zdm.pause(job_id bigint) RETURNS text LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_pause';
COMMENT ON FUNCTION zdm.pause(bigint) IS
'Holds a job: SELECT zdm.pause(12). A job that works in batches stops within 100 ms, gives its turn on the relation away and keeps its place. Returns ''paused''. Takes no lock on the relation. Undo: zdm.resume.';

CREATE FUNCTION zdm.resume(job_id bigint) RETURNS text LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_resume';
COMMENT ON FUNCTION zdm.resume(bigint) IS
'Lets a paused job go on from its cursor, takes up an interrupted one, and adopts a job that came with a copy of the database. Returns the state asked for, ''queued'' or ''running''.';

CREATE FUNCTION zdm.cancel(job_id bigint) RETURNS text LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_cancel';
COMMENT ON FUNCTION zdm.cancel(bigint) IS
'Ends a job for good; batches already committed stay. Jobs that depend on it fail. Returns ''cancelled''. zdm.retry continues from the cursor.';

CREATE FUNCTION zdm.retry(job_id bigint) RETURNS text LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_retry';
COMMENT ON FUNCTION zdm.retry(bigint) IS
'Queues a failed or cancelled job again, from its cursor, and revives the jobs that failed because of it. Takes up an interrupted one. Returns ''queued''.';

CREATE FUNCTION zdm.pause_all() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_pause_all';
COMMENT ON FUNCTION zdm.pause_all() IS
'Holds every job of this database, new ones as well, until zdm.resume_all(). Needs pg_signal_backend. The setting zdm.enabled does the same for the whole server.';

CREATE FUNCTION zdm.resume_all() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_resume_all';
COMMENT ON FUNCTION zdm.resume_all() IS
'Ends zdm.pause_all(). A job that was paused by itself stays paused.';

CREATE FUNCTION zdm.alter_job(
    job_id bigint, workers integer DEFAULT NULL, batch_time interval DEFAULT NULL,
    max_replica_lag interval DEFAULT NULL, max_wal_rate text DEFAULT NULL, max_rows_per_second bigint DEFAULT NULL,
    throttle_query text DEFAULT NULL, time_window text DEFAULT NULL, vacuum boolean DEFAULT NULL,
    on_error text DEFAULT NULL)
RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_alter_job';
COMMENT ON FUNCTION zdm.alter_job(bigint, integer, interval, interval, text, bigint, text, text, boolean, text) IS
'Changes the pace of an unfinished job; NULL leaves an option as it is. Takes effect with the next batch: SELECT zdm.alter_job(12, batch_time => ''20 ms'').';

CREATE FUNCTION zdm.require(name text) RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_require';
COMMENT ON FUNCTION zdm.require(text) IS
'Raises unless the job of that name has succeeded: the first line of the migration file that builds on it.';

CREATE PROCEDURE zdm.wait(job_id bigint, timeout interval DEFAULT NULL) LANGUAGE c AS 'MODULE_PATHNAME', 'zdm_wait';
COMMENT ON PROCEDURE zdm.wait(bigint, interval) IS
'CALL zdm.wait(12, timeout => ''10 min''): returns when the job has succeeded, raises the job''s own error when it failed, ZD008 on timeout. Holds no snapshot and no lock while it waits. Refused in a transaction that the job would have to wait for.';

-- Parts of the views. They tell nothing about a job but what the view around them shows.
CREATE FUNCTION zdm._job_alive(job_id bigint) RETURNS boolean LANGUAGE c VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'zdm_job_alive';
COMMENT ON FUNCTION zdm._job_alive(bigint) IS
'Does a runner hold the job''s lock? NULL on a standby, where nothing runs.';
CREATE FUNCTION zdm._job_moved_on(job_id bigint, epoch bigint) RETURNS boolean LANGUAGE c VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'zdm_job_moved_on';
COMMENT ON FUNCTION zdm._job_moved_on(bigint, bigint) IS
'Has a runner that a snapshot showed at work ended in good order since? Then its lock is gone and its process is not missed.';
CREATE FUNCTION zdm._home() RETURNS text LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'zdm_home';
COMMENT ON FUNCTION zdm._home() IS
'Identity of this server, database and installation of the extension; a job whose home differs came with a copy.';
CREATE FUNCTION zdm._enabled() RETURNS boolean LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'zdm_enabled';
COMMENT ON FUNCTION zdm._enabled() IS 'The setting zdm.enabled.';
CREATE FUNCTION zdm._shown_state(recorded text, request text, alive boolean) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'zdm_shown_state';
COMMENT ON FUNCTION zdm._shown_state(text, text, boolean) IS
'The state that zdm.jobs shows: what a runner recorded, what was asked for, and whether a runner holds the job.';
