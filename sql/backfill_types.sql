-- The derived where_clause converges for every type: a second job finds nothing, and an independent check agrees.
\getenv inputs PG_ABS_SRCDIR
\set helpers :inputs /sql/helpers.psql
\i :helpers
CREATE SCHEMA types;
SET search_path = types;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (x int, y text);
CREATE TYPE place AS (p point, j json);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN money_8_1 AS numeric(8,1);
CREATE DOMAIN pair_domain AS pair;
CREATE DOMAIN codes AS char(3)[];

-- CALL converges(type, expression, check): a table with 20 source rows, NULLs among them; the check, where the column
-- is v, is written without the derivation
CREATE PROCEDURE converges(type text, expression text, same text DEFAULT NULL, INOUT said text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    job bigint;
    left_over bigint;
BEGIN
    EXECUTE format('CREATE TABLE types.one (id int PRIMARY KEY, n numeric, s text, at timestamptz, v %s)', type);
    INSERT INTO types.one SELECT i, i * 1.27, 'text ' || i, '2026-03-29 00:30:00.123456+00'::timestamptz + i * interval '31 min 7.7 s'
    FROM generate_series(1, 19) i;
    INSERT INTO types.one (id) VALUES (20);
    IF expression = 'DEFAULT' THEN
        UPDATE types.one SET v = NULL;
    END IF;
    COMMIT;
    CALL t.backfill_twice('types.one', 'v = ' || expression, NULL, said);
    EXECUTE format('SELECT count(*) FROM types.one WHERE (%s) IS NOT TRUE', coalesce(same, format('v::text IS NOT DISTINCT FROM (%s)::text', expression)))
        INTO left_over;
    IF left_over > 0 THEN
        said := said || format(', %s ROWS WRONG', left_over);
    END IF;
    EXECUTE 'DROP TABLE types.one';
END $$;

-- assignments that round, cut, pad, or convert
CALL converges('int', 'n', 'v IS NOT DISTINCT FROM round(n)');
CALL converges('int', 'n / 3', 'v IS NOT DISTINCT FROM round(n / 3)');
CALL converges('smallint', 'n::float8', 'v IS NOT DISTINCT FROM round(n)');
CALL converges('bigint', 'id * 3000000000', 'v = id::numeric * 3000000000');
CALL converges('numeric', 'n / 7', 'v IS NOT DISTINCT FROM n / 7');
CALL converges('numeric(8,1)', 'n / 7', 'v IS NOT DISTINCT FROM round(n / 7, 1)');
CALL converges('real', 'n / 7', 'v IS NOT DISTINCT FROM (n / 7)::real');
CALL converges('double precision', 'n / 7', 'v IS NOT DISTINCT FROM (n / 7)::float8');
CALL converges('double precision', 'CASE WHEN id % 2 = 0 THEN ''NaN'' ELSE ''-0'' END::float8');
CALL converges('money', 'n', 'v::numeric IS NOT DISTINCT FROM round(n, 2)');
CALL converges('boolean', 'n > 10', 'v IS NOT DISTINCT FROM (n > 10)');
CALL converges('text', 's', 'v IS NOT DISTINCT FROM s');
CALL converges('varchar(12)', 's', 'v IS NOT DISTINCT FROM s::varchar');
CALL converges('varchar(3)', 'left(s, 3) || ''     ''', 'v IS NOT DISTINCT FROM left(s, 3)');
CALL converges('char(12)', 's', 'length(v) IS NOT DISTINCT FROM length(s) AND octet_length(coalesce(v, repeat('' '', 12))) = 12');
CALL converges('char(12)', 's || ''  ''', 'v IS NOT DISTINCT FROM s::char(12)');
CALL converges('"char"', 's', 'v IS NOT DISTINCT FROM left(s, 1)::"char"');
CALL converges('name', 's', 'v::text IS NOT DISTINCT FROM s');
CALL converges('text COLLATE "C"', 's || ''x'' COLLATE "POSIX"', 'v IS NOT DISTINCT FROM s || ''x'' COLLATE "C"');
CALL converges('timestamptz', 'at', 'v IS NOT DISTINCT FROM at');
CALL converges('timestamp(0)', 'at', 'v IS NOT DISTINCT FROM at::timestamp(0)');
CALL converges('timestamptz(3)', 'at', 'v IS NOT DISTINCT FROM at::timestamptz(3)');
CALL converges('date', 'at', 'v IS NOT DISTINCT FROM at::date');
CALL converges('time', 'at', 'v IS NOT DISTINCT FROM at::time');
CALL converges('timetz(1)', 'at', 'v IS NOT DISTINCT FROM at::timetz(1)');
CALL converges('interval', 'at - ''2026-01-01''', 'v IS NOT DISTINCT FROM at - ''2026-01-01''::timestamptz');
CALL converges('interval hour to minute', 'at - ''2026-01-01''', 'v IS NOT DISTINCT FROM (at - ''2026-01-01''::timestamptz)::interval hour to minute');
CALL converges('bytea', 'convert_to(s, ''UTF8'')', 'v IS NOT DISTINCT FROM s::bytea');
CALL converges('uuid', 'md5(s)::uuid', 'v IS NOT DISTINCT FROM md5(s)::uuid');
CALL converges('bit(4)', '(id % 16)::bit(4)', 'v::int = id % 16');
CALL converges('bit varying(6)', '(id % 16)::bit(4)', 'v = (id % 16)::bit(4)');
CALL converges('inet', '(''10.0.0.'' || id || ''/8'')::inet', 'host(v) = ''10.0.0.'' || id');
CALL converges('cidr', '(''10.'' || id || ''.0.0/16'')::cidr');
CALL converges('macaddr', '(''08:00:2b:01:02:'' || id + 10)::macaddr');
CALL converges('pg_lsn', '(''0/'' || id)::pg_lsn');
CALL converges('oid', 'id', 'v = id::oid');
CALL converges('regclass', '''types.one''::regclass');
-- without an equality operator
CALL converges('json', 'json_build_object(''n'', n, ''s'', s)');
CALL converges('json', '''{"a":  1, "a": 2}''', 'v::text = ''{"a":  1, "a": 2}''');
CALL converges('xml', 'xmlelement(name x, s)');
CALL converges('point', 'point(n::float8, 1)', 'v ~= point(n::float8, 1) OR n IS NULL AND v IS NULL');
CALL converges('polygon', 'polygon(box(point(0, 0), point(id, id)))');
CALL converges('json[]', 'ARRAY[to_json(s), NULL]');
CALL converges('place', 'ROW(point(id, 1), to_json(s))');
-- with one that is not sameness: box = compares areas, tsvector and jsonb normalise
CALL converges('box', 'box(point(0, 0), point(id, 20 - id))');
CREATE TABLE boxes (id int PRIMARY KEY, v box, w circle);
INSERT INTO boxes SELECT i, box(point(0, 0), point(20 - i, i)), circle(point(i, 0), 1) FROM generate_series(1, 19) i;
CALL t.backfill_twice('boxes', 'v = box(point(0, 0), point(id, 20 - id)), w = circle(point(0, id), 1)');
SELECT count(*) FROM boxes WHERE v::text = box(point(0, 0), point(id, 20 - id))::text AND w::text = circle(point(0, id), 1)::text;
CALL converges('circle', 'circle(point(id, id), 1)');
CALL converges('line', 'line(point(0, 0), point(id, 1))');
CALL converges('lseg', 'lseg(point(0, 0), point(id, 1))');
CALL converges('path', 'path(polygon(box(point(0, 0), point(id, id))))');
CALL converges('jsonb', '''{"b":  1, "a": 2}''', 'v = ''{"a": 2, "b": 1}''');
CALL converges('jsonb', 'to_jsonb(s)');
CALL converges('tsvector', 'to_tsvector(''simple'', s)');
CALL converges('tsquery', 'plainto_tsquery(''simple'', s)');
-- of our own
CALL converges('mood', 'CASE WHEN n > 12 THEN ''happy'' WHEN n > 6 THEN ''ok'' ELSE ''sad'' END::types.mood');
CALL converges('mood', '''sad''');
CALL converges('pair', 'ROW(n, s)', '(v).x IS NOT DISTINCT FROM round(n)::int AND (v).y IS NOT DISTINCT FROM s');
CALL converges('pair', '(id, s)', '(v).x = id AND (v).y IS NOT DISTINCT FROM s');
CALL converges('pair[]', 'ARRAY[(id, s)::types.pair, NULL]');
CALL converges('pair_domain', 'ROW(id, s)', '(v).x = id AND (v).y IS NOT DISTINCT FROM s');
CALL converges('positive', 'id', 'v = id');
CALL converges('money_8_1', 'n / 7', 'v IS NOT DISTINCT FROM round(n / 7, 1)');
CALL converges('codes', 'ARRAY[left(s, 2), ''x'']', 'v::text IS NOT DISTINCT FROM ARRAY[left(s, 2), ''x'']::char(3)[]::text');
CALL converges('int[]', 'ARRAY[id, NULL, n::int]', 'v IS NOT DISTINCT FROM ARRAY[id, NULL, n::int]');
CALL converges('int[]', 'ARRAY[n, 1.5]', 'v IS NOT DISTINCT FROM ARRAY[round(n), 2]::int[]');
CALL converges('numeric(8,1)[]', 'ARRAY[n, 1.25]', 'v IS NOT DISTINCT FROM ARRAY[round(n, 1), 1.3]');
CALL converges('int[][]', 'ARRAY[[id, 1], [2, 3]]', 'v = ARRAY[[id, 1], [2, 3]]');
CALL converges('text[]', '''{}''', 'v = ''{}''');
CALL converges('int4range', 'int4range(0, id, ''(]'')', 'lower(v) = 1 AND upper(v) = id + 1');
CALL converges('numrange', 'numrange(0, n)', 'upper(v) IS NOT DISTINCT FROM n');
CALL converges('tstzmultirange', 'tstzmultirange(tstzrange(''2026-01-01'', at))', 'at IS NULL OR upper(v) = at');

-- NULL and DEFAULT
CALL converges('int', 'NULL', 'v IS NULL');
CALL converges('json', 'NULL', 'v IS NULL');
CALL converges('int DEFAULT 7', 'NULL', 'v IS NULL');
CALL converges('int', 'DEFAULT', 'v IS NULL');
CALL converges('numeric(8,1) DEFAULT 1.26', 'DEFAULT', 'v = 1.3');
CALL converges('positive DEFAULT 3', 'DEFAULT', 'v = 3');
CALL converges('text DEFAULT current_setting(''search_path'')', 'DEFAULT', 'v = ''types''');

-- sub-selects, functions found by search_path, CASE that guards an error
CREATE TABLE rates (id int PRIMARY KEY, rate numeric);
INSERT INTO rates SELECT i, i / 10.0 FROM generate_series(1, 15) i;
CREATE FUNCTION twice(numeric) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT $1 * 2';
CALL converges('numeric(8,2)', '(SELECT n * rate FROM rates r WHERE r.id = one.id)', 'v IS NOT DISTINCT FROM round(n * nullif(id, 16) / 10, 2) OR id > 15 AND v IS NULL');
CALL converges('int', '(SELECT count(*) FROM rates r WHERE r.rate < one.n)');
CALL converges('numeric', 'twice(n)', 'v IS NOT DISTINCT FROM n * 2');
CALL converges('int', 'CASE WHEN id <> 5 THEN 100 / (id - 5) END', 'v IS NOT DISTINCT FROM 100 / nullif(id - 5, 0)');
CALL converges('text', '(WITH w AS (SELECT max(rate) m FROM rates) SELECT s || m FROM w)', 'v IS NOT DISTINCT FROM s || 15 / 10.0');
CALL converges('text', '(SELECT string_agg(x::text, '','' ORDER BY x) FROM generate_series(1, one.id % 4) x)');
CALL converges('bool', 'EXISTS (SELECT FROM rates r WHERE r.id = one.id)', 'v = (id <= 15)');
CALL converges('bool', 'id IN (SELECT id FROM rates)', 'v = (id <= 15)');

-- several columns at once: each row is changed once, whichever of them differs
CREATE TABLE several (id int PRIMARY KEY, a int, b numeric(4,1), c text, d date);
INSERT INTO several SELECT i, CASE WHEN i % 2 = 0 THEN i END, i, 'x', '2026-01-01' FROM generate_series(1, 100) i;
CALL t.backfill_twice('several', 'a = id, (b, c) = (id * 1.0, ''x''), d = DATE ''2026-01-01''');
CALL t.backfill_twice('several', '(a, b, c) = (SELECT id + 1, id / 3.0, (SELECT rate::text FROM rates r WHERE r.id = several.id))');
SELECT count(*) FROM several WHERE a = id + 1 AND b = round(id / 3.0, 1) AND c IS NOT DISTINCT FROM (SELECT rate::text FROM rates r WHERE r.id = several.id);
-- swapped: not a fixed point, and said so
UPDATE several SET b = 0;
CALL t.backfill('several', 'a = b, b = a');
SELECT count(*) FROM several WHERE a = id + 1;

-- what the session's settings make of text: captured at the call, and the same in the worker
SET TimeZone = 'Asia/Kathmandu';
SET DateStyle = 'German, DMY';
SET IntervalStyle = 'sql_standard';
SET bytea_output = 'escape';
SET extra_float_digits = -3;
CALL converges('text', 'at::text');
CALL converges('text', '(at - ''01.02.2026'')::text');
CALL converges('text', 'convert_to(s, ''UTF8'')::text');
CALL converges('text', '(n::float8 / 7)::text');
CALL converges('date', '(''01.02.'' || (2000 + id))::date', 'extract(month FROM v) = 2');
CALL converges('date', '''01.02.2026''', 'extract(month FROM v) = 2');
CALL converges('timestamptz', '''2026-03-29 02:30''', 'v = ''2026-03-28 20:45+00''');
CREATE TABLE kept (id int PRIMARY KEY, at timestamptz, v text);
INSERT INTO kept VALUES (1, '2026-03-04 05:06:07+00');
SELECT zdm.start_backfill('kept', 'v = at::text', name => 'kept', paused => true) > 0;
RESET TimeZone;
RESET DateStyle;
SELECT zdm.resume(t.job('kept'));
SELECT t.outcome('kept');
SELECT v FROM kept;
DROP SCHEMA types CASCADE;
