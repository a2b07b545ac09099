-- Check 3: errors cost no memory that is not given back.
CREATE PROCEDURE boundary.many(statement text, n integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..n LOOP
        BEGIN
            EXECUTE statement;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
END $$;
CREATE FUNCTION boundary.contexts() RETURNS bigint LANGUAGE sql AS $$
    SELECT sum(total_bytes)::bigint / 1024 FROM pg_catalog.pg_backend_memory_contexts
$$;
CREATE TEMP TABLE growth (kind text, contexts bigint, rss bigint);

\set statement 'SELECT boundary.pass(''SELECT boundary.raise_all()'', 3)'
\set kind 'a server error'
\ir memory_one.sql
\set statement 'SELECT boundary.throws(''error'')'
\set kind 'our own error'
\ir memory_one.sql
\set statement 'SELECT boundary.throws(''std'')'
\set kind 'std::exception'
\ir memory_one.sql
\set statement 'SELECT boundary.handled(''SELECT boundary.throws(''''failure'''')'')'
\set kind 'an error caught in C++'
\ir memory_one.sql
