-- Check 6, the other way round: with one precaution taken away the same attacks work. Variables: session, role, super.
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.t SET v = evil.become('user set') WHERE id = 1$$, 'set role only', 1, NULL) \gset
SELECT boundary.ok(boundary.summary(:task) LIKE '%user set did RESET ROLE by ' || :'super' || ' superuser%',
    'control: SET ROLE alone, and RESET ROLE makes a superuser', boundary.summary(:task));
CALL boundary.attempt(:'session', :'role', 'evil, pg_catalog', $$SELECT 1$$, 'naive switch', 1, NULL) \gset
SELECT boundary.ok(boundary.summary(:task) LIKE '%user + by ' || :'super' || ' superuser%',
    'control: the user switched without the search_path, and an operator runs as superuser', boundary.summary(:task));
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.deferred SET v = 1$$, 'no force, commit as session', 1, NULL) \gset
SELECT boundary.ok(boundary.summary(:task) LIKE '%--%user deferred did RESET ROLE by ' || :'super' || ' superuser%',
    'control: deferred triggers left to a commit as the session, and RESET ROLE makes a superuser', boundary.summary(:task));
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.deferring SET v = 1$$, 'commit as session', 1, NULL) \gset
SELECT boundary.ok(boundary.summary(:task) LIKE '%--%user deferred 2 did RESET ROLE by ' || :'super' || ' superuser%',
    'control: forcing them alone is not enough', boundary.summary(:task));
CALL boundary.attempt(:'session', :'role', 'pg_catalog', $$UPDATE evil.deferred SET v = 1$$, 'no force', 1, NULL) \gset
SELECT boundary.eq(boundary.summary(:task), 'n=1 ok, --, user deferred by role',
    'control: the commit as the role alone would be enough for them');
