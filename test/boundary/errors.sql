-- Checks 1 and 2: fields of errors, destructors, nesting.
CREATE FUNCTION boundary.raise_all() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the message %', '%s' USING ERRCODE = 'ZX123', DETAIL = 'the detail', HINT = 'the hint',
        SCHEMA = 'the schema', TABLE = 'the table', COLUMN = 'the column', CONSTRAINT = 'the constraint',
        DATATYPE = 'the datatype';
END $$;

CREATE TYPE boundary.diagnosis AS (state text, message text, detail text, hint text, context text, others text);
CREATE FUNCTION boundary.diagnose(sql text) RETURNS boundary.diagnosis LANGUAGE plpgsql AS $$
DECLARE
    d boundary.diagnosis; s text; t text; c text; k text; y text;
BEGIN
    EXECUTE sql;
    RETURN NULL;
EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
    GET STACKED DIAGNOSTICS d.state = RETURNED_SQLSTATE, d.message = MESSAGE_TEXT, d.detail = PG_EXCEPTION_DETAIL,
        d.hint = PG_EXCEPTION_HINT, d.context = PG_EXCEPTION_CONTEXT, s = SCHEMA_NAME, t = TABLE_NAME,
        c = COLUMN_NAME, k = CONSTRAINT_NAME, y = PG_DATATYPE_NAME;
    d.others = concat_ws('/', s, t, c, k, y);
    RETURN d;
END $$;

CREATE FUNCTION boundary.fields(d boundary.diagnosis) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws('|', d.state, d.message, d.detail, d.hint)
$$;

-- 1: a server error
SELECT boundary.died() AS died \gset
SELECT * FROM boundary.diagnose('SELECT boundary.pass(''SELECT boundary.raise_all()'', 3)') \gset g_
SELECT boundary.eq(boundary.fields(ROW(:'g_state', :'g_message', :'g_detail', :'g_hint', '', '')),
    'ZX123|the message %s|the detail|the hint', 'a server error keeps SQLSTATE, message, detail and hint');
SELECT boundary.eq(:'g_others', 'the schema/the table/the column/the constraint/the datatype',
    'a server error keeps the names of its objects');
SELECT boundary.ok(:'g_context' ~ '(?n)^PL/pgSQL function boundary.raise_all\(\) line 3 at RAISE$'
    AND :'g_context' ~ '(?n)^SQL statement "SELECT boundary.raise_all\(\)"$'
    AND :'g_context' ~ '(?n)^PL/pgSQL function boundary.diagnose\(text\) line 5 at EXECUTE$'
    AND regexp_count(:'g_context', 'raise_all\(\) line') = 1,
    'a server error keeps its whole context, each line once', :'g_context');
SELECT boundary.eq(boundary.live()::text, '0', 'a server error destroys every object it passes');
SELECT boundary.eq((boundary.died() - :died)::text, '3', 'one object a frame');

-- 1: errors of our own
SELECT * FROM boundary.diagnose('SELECT boundary.throws(''error'')') \gset g_
SELECT boundary.eq(boundary.fields(ROW(:'g_state', :'g_message', :'g_detail', :'g_hint', '', '')),
    '55006|own message|own detail|own hint', 'our own error keeps SQLSTATE, message, detail and hint');
SELECT boundary.ok(:'g_context' ~ '(?n)^PL/pgSQL function boundary.diagnose\(text\) line 5 at EXECUTE$',
    'our own error gets the context of its callers', :'g_context');
SELECT boundary.eq(boundary.fields(boundary.diagnose('SELECT boundary.throws(''bare'')')),
    'ZD006|own message with a %s in it||', 'class ZD, no detail, no hint, and a percent sign in the message');
SELECT * FROM boundary.diagnose('SELECT boundary.throws(''failure'')') \gset g_
SELECT boundary.eq(boundary.fields(ROW(:'g_state', :'g_message', :'g_detail', :'g_hint', '', '')),
    'ZD006|kept message|kept detail|kept hint', 'a recorded failure is raised again with all fields');
SELECT boundary.ok(:'g_context' ~ '^kept context\n.*diagnose', 'and its context comes before that of its callers',
    :'g_context');
SELECT boundary.eq(boundary.fields(boundary.diagnose('SELECT boundary.throws(''guard'')')),
    '55006|guarded message|guarded detail|', 'an error raised inside a guard');
SELECT boundary.eq(boundary.fields(boundary.diagnose('SELECT boundary.throws(''std'')')),
    'XX000|std message||', 'std::exception is an internal error with its text');
SELECT boundary.sanitized() AS sanitized \gset
\if :sanitized
\else
SELECT boundary.eq(boundary.fields(boundary.diagnose('SELECT boundary.throws(''bad_alloc'')')),
    '53200|out of memory||', 'std::bad_alloc is out of memory');
\endif
SELECT boundary.eq(boundary.fields(boundary.diagnose('SELECT boundary.throws(''int'')')),
    'XX000|unknown C++ exception||', 'a thrown int is an internal error');
SELECT boundary.eq(boundary.fields(boundary.diagnose('SELECT boundary.throws(''nested guard'')')),
    'XX000|after a nested guard||', 'a guard inside a guarded closure: the outer guard takes itself off the stack');
SELECT boundary.eq(boundary.fields(boundary.diagnose('SELECT boundary.parameters(25)')),
    '54023|a statement takes at most 24 parameters||', 'too many parameters are refused, not written past an array');
SELECT boundary.eq(boundary.parameters(24), 'ran', 'as many as allowed are not');
SELECT boundary.eq(boundary.live()::text, '0', 'none of these leaves an object behind');

-- 2: nesting
SELECT boundary.died() AS died \gset
SELECT * FROM boundary.diagnose($$SELECT boundary.pass('SELECT boundary.pass(''SELECT boundary.pass(''''SELECT boundary.raise_all()'''', 4)'', 3)', 2)$$) \gset g_
SELECT boundary.eq(boundary.fields(ROW(:'g_state', :'g_message', :'g_detail', :'g_hint', '', '')),
    'ZX123|the message %s|the detail|the hint', 'SQL, C++, SQL, C++, SQL, C++, SQL: every field survives');
SELECT boundary.eq((boundary.died() - :died)::text || ' ' || boundary.live(), '9 0', 'and 4 + 3 + 2 objects are destroyed');
SELECT boundary.ok(regexp_count(:'g_context', 'SQL statement') = 4, 'and the context names every level once', :'g_context');
SELECT * FROM boundary.diagnose($$SELECT boundary.pass('SELECT boundary.pass(''SELECT boundary.throws(''''error'''')'', 3)', 2)$$) \gset g_
SELECT boundary.eq(boundary.fields(ROW(:'g_state', :'g_message', :'g_detail', :'g_hint', '', '')),
    '55006|own message|own detail|own hint', 'our own error, through as many levels');
SELECT boundary.eq(boundary.live()::text, '0', 'and no object is left');
SELECT boundary.eq(boundary.handled('SELECT boundary.pass(''SELECT boundary.raise_all()'', 3)'),
    'ZX123 the message %s, alive', 'caught in C++, subtransaction rolled back: the transaction goes on');
SELECT boundary.eq(boundary.handled('SELECT boundary.throws(''std'')'), 'XX000 std message, alive', 'the same with our own');
SELECT boundary.eq(boundary.handled('SELECT 1'), 'ok, alive', 'and without an error');
CREATE TABLE boundary.kept (v text);
SELECT boundary.eq(boundary.handled($$WITH i AS (INSERT INTO boundary.kept VALUES ('lost') RETURNING 1)
    SELECT boundary.handled('SELECT boundary.handled(''SELECT boundary.raise_all()'')') || boundary.pass('SELECT 1/0', 1) FROM i$$),
    '22012 division by zero, alive', 'three levels of handlers, the outer error wins');
INSERT INTO boundary.kept SELECT boundary.handled($$SELECT boundary.handled('SELECT boundary.raise_all()')$$);
SELECT boundary.eq((SELECT string_agg(v, ',') FROM boundary.kept), 'ok, alive', 'what a subtransaction wrote is gone, what came after is kept');
BEGIN;
INSERT INTO boundary.kept VALUES ('before');
SAVEPOINT s;
\set ON_ERROR_STOP off
\set VERBOSITY sqlstate
SELECT boundary.pass('SELECT boundary.raise_all()', 3);
ROLLBACK TO s;
INSERT INTO boundary.kept VALUES ('after');
COMMIT;
\set ON_ERROR_STOP on
SELECT boundary.eq((SELECT string_agg(v, ',') FROM boundary.kept), 'ok, alive,before,after', 'a savepoint of the client outlives an error');
