-- Check 6, the stage: what a role without rights prepares against us. Variables: plain, login, super (names of roles).
CREATE SCHEMA evil AUTHORIZATION :"plain";
CREATE TABLE boundary.loot (v text);
GRANT TEMPORARY ON DATABASE :"DBNAME" TO PUBLIC;

-- Runs `sql` in one worker: connected as `session`, working as `role`.
CREATE PROCEDURE boundary.attempt(session text, role text, path text, sql text, mode text, batches integer, INOUT task bigint)
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE evil.t SET v = 0 WHERE v <> 0;
    task := nextval('boundary.task_id');
    INSERT INTO boundary.task (task, name, path, sql, mode, batches)
        VALUES (task, role, path, sql, mode, batches);
    INSERT INTO boundary.ledger (task) VALUES (task);
    COMMIT;
    PERFORM boundary.run_worker(task, session::regrole, role::regrole);
END $$;

-- What the witnesses of a task wrote, in order.
CREATE FUNCTION boundary.witnessed(task bigint)
RETURNS TABLE (line bigint, what text, who text, session text, super text, local text, restricted text)
LANGUAGE sql AS $$
    SELECT n, f[1], f[2], f[3], f[4], f[5], f[6]
    FROM string_to_table(rtrim(pg_read_file('zdm_boundary_' || task || '.txt', 0, 1000000, true), E'\n'), E'\n') WITH ORDINALITY AS l (l, n),
        LATERAL (SELECT string_to_array(l, '|')) AS a (f)
$$;

-- One line about a task: the bookkeeping's count, how it ended, and who ran what. '--' is where the user's part ends
-- and ours begins; what stands after it ran at commit. 'by role' is: as the job's role, unable to become another.
CREATE FUNCTION boundary.summary(task bigint) RETURNS text LANGUAGE sql AS $$
    SELECT format('n=%s %s', l.n, CASE WHEN NOT t.ended THEN 'died' WHEN t.sqlstate = '' THEN 'ok' ELSE t.sqlstate END) || coalesce((
        SELECT string_agg(CASE WHEN what = 'between' THEN ', --' ELSE ', ' || what || ' by ' ||
                CASE WHEN who = t.name AND super = 'plain' AND local = 'local' AND restricted = ''
                     THEN 'role' ELSE concat_ws(' ', who, super, local, restricted) END END, '' ORDER BY line)
        FROM (SELECT what, who, super, local, restricted, min(line) AS line FROM boundary.witnessed($1)
              WHERE what NOT LIKE 'lock %' GROUP BY 1, 2, 3, 4, 5) AS w), '')
    FROM boundary.task AS t JOIN boundary.ledger AS l USING (task) WHERE task = $1
$$;
CREATE FUNCTION boundary.locks(task bigint) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(what, ', ' ORDER BY line) FROM boundary.witnessed($1) WHERE what LIKE 'lock %'
$$;

SET ROLE :"plain";
CREATE TABLE evil.t (id integer PRIMARY KEY, v integer NOT NULL);
INSERT INTO evil.t VALUES (1, 0), (2, 0);
CREATE TABLE evil.triggered (id integer PRIMARY KEY, v integer NOT NULL);
INSERT INTO evil.triggered VALUES (1, 0);
CREATE TABLE evil.deferred (id integer PRIMARY KEY, v integer NOT NULL);
INSERT INTO evil.deferred VALUES (1, 0);
CREATE TABLE evil.deferring (id integer PRIMARY KEY, v integer NOT NULL);
INSERT INTO evil.deferring VALUES (1, 0);

CREATE FUNCTION evil.with_role() RETURNS void LANGUAGE plpgsql SET role = 'none' AS $$
BEGIN PERFORM boundary.witness('user with a SET clause'); END $$;

-- Tries everything that could make it somebody else, or reach what is not its own.
CREATE FUNCTION evil.become(tag text) RETURNS integer LANGUAGE plpgsql AS $f$
DECLARE
    try text;
BEGIN
    PERFORM boundary.witness(tag);
    FOREACH try IN ARRAY current_setting('evil.tries')::text[] LOOP
        BEGIN
            EXECUTE try;
            PERFORM boundary.witness(tag || ' did ' || try);
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
    PERFORM boundary.witness(tag);
    RETURN 666;
END $f$;
RESET ROLE;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET evil.tries = %L', current_database(), ARRAY[
    'RESET ROLE', 'SET ROLE NONE', 'SET LOCAL ROLE NONE', 'SET ROLE ' || current_user,
    'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION DEFAULT', 'SET SESSION AUTHORIZATION ' || current_user,
    'SELECT set_config(''role'', ''none'', false)', 'SELECT set_config(''role'', ''none'', true)',
    'SELECT set_config(''session_authorization'', ''default'', false)',
    'RESET ALL; RESET ROLE', 'SELECT evil.with_role()', 'INSERT INTO boundary.loot VALUES (current_user)',
    'ALTER TABLE boundary.loot ADD w text', 'UPDATE boundary.ledger SET n = 1000',
    'COPY (SELECT 1) TO PROGRAM ''true''', 'SELECT pg_read_file(''PG_VERSION'')'
    ]); END $$;
SET ROLE :"plain";

CREATE FUNCTION evil.trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM evil.become('user ' || lower(TG_NAME));
    RETURN NEW;
END $$;
CREATE TRIGGER before BEFORE UPDATE ON evil.triggered FOR EACH ROW EXECUTE FUNCTION evil.trigger();
CREATE TRIGGER after AFTER UPDATE ON evil.triggered FOR EACH ROW EXECUTE FUNCTION evil.trigger();
CREATE CONSTRAINT TRIGGER deferred AFTER UPDATE ON evil.deferred DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION evil.trigger();

-- Defers itself again while it is forced, so that its second and third run come at commit.
CREATE FUNCTION evil.again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM evil.become('user deferred ' || NEW.v);
    SET CONSTRAINTS ALL DEFERRED;
    IF NEW.v IN (1, 2) THEN
        UPDATE evil.deferring SET v = v + 1;
    ELSIF NEW.v = 11 THEN
        UPDATE evil.deferring SET v = 12;
    ELSIF NEW.v = 12 THEN
        RAISE EXCEPTION 'too late' USING ERRCODE = 'ZZ012';
    ELSIF NEW.v = 21 THEN
        UPDATE evil.deferring SET v = 22;
    ELSIF NEW.v = 22 THEN
        PERFORM pg_advisory_unlock_all();
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER deferring AFTER UPDATE ON evil.deferring DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION evil.again();

CREATE FUNCTION evil.fail(state text) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'message of %', state USING ERRCODE = state, DETAIL = 'detail', HINT = 'hint';
END $$;
CREATE FUNCTION evil.run(sql text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN EXECUTE sql; RETURN 1; END $$;

-- In front of pg_catalog.
CREATE FUNCTION evil.plus(bigint, integer) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN evil.become('user +'); END $$;
CREATE OPERATOR evil.+ (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = evil.plus);
CREATE FUNCTION evil.same(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN evil.become('user =') = 666::integer; END $$;
CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.same);
CREATE FUNCTION evil.join(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN evil.become('user ||')::text; END $$;
CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.join);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.become('user now'); RETURN NULL; END $$;
CREATE TABLE evil.pg_extension ();

-- A literal whose input function runs a query of the user while the statement is still being parsed.
CREATE FUNCTION evil.allowed(v integer) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    n bigint;
BEGIN
    SELECT pg_catalog.count(*) INTO n FROM evil.t;
    RETURN n OPERATOR(pg_catalog.>) 0;
END $$;
CREATE DOMAIN evil.checked AS integer CHECK (evil.allowed(VALUE));
RESET ROLE;
SELECT boundary.ok(NOT has_table_privilege(:'plain', 'boundary.ledger', 'SELECT, UPDATE'), 'the hostile role has no right on our table');
