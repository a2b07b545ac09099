CALL boundary.many(:'statement', 5000);
SELECT boundary.contexts() AS contexts, coalesce(boundary.rss(), 0) AS rss \gset
CALL boundary.many(:'statement', 100000);
SELECT boundary.contexts() - :contexts AS contexts, coalesce(boundary.rss(), 0) - :rss AS rss \gset
SELECT boundary.ok(:contexts < 1024, '100,000 times ' || :'kind' || ': memory contexts do not grow', :'contexts' || ' kB');
SELECT boundary.ok(:rss < 3072, '100,000 times ' || :'kind' || ': the process does not grow', :'rss' || ' kB');
SELECT boundary.eq(boundary.live()::text, '0', '100,000 times ' || :'kind' || ': no object is left');
