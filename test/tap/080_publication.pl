# A publication FOR ALL TABLES publishes no table of zdm_ext, so that a subscriber who has none of them goes on.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use ZdmTest;

my $publisher = new_node('publisher', streaming => 'logical', extension => 0);
my $subscriber = new_node('subscriber', streaming => 'logical', extension => 0);

for my $node ($publisher, $subscriber)
{
	sql($node, q{
CREATE TABLE customer (id int PRIMARY KEY, name text, shown_name text);
CREATE TABLE visit (at timestamptz, customer int)});
}
sql($publisher, q{
INSERT INTO customer SELECT i, 'customer ' || i FROM generate_series(1, 5000) i;
INSERT INTO visit SELECT now(), i FROM generate_series(1, 100) i;
CREATE PUBLICATION everything FOR ALL TABLES});
my $connection = $publisher->connstr . ' dbname=postgres';
sql($subscriber, "CREATE SUBSCRIPTION from_publisher CONNECTION '$connection' PUBLICATION everything");
ok( poll_sql($subscriber, q{SELECT count(*) > 0 AND bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel}),
	'the subscription has copied what was there');
is(sql($subscriber, 'SELECT count(*) FROM customer'), 5000, 'all of it');
my $from = log_size($subscriber);

# Only now zdm_ext comes, and only to the publisher.
sql($publisher, 'CREATE EXTENSION zdm_ext');
my $job = sql($publisher, q{SELECT zdm.start_backfill('customer', 'shown_name = upper(name)', name => 'shown names', batch_time => '20 ms')});
ok(wait_for_state($publisher, $job, 'succeeded'), 'a job runs on the publisher');

# What comes after it arrives only when all before it has been applied.
sub arrives
{
	my ($what) = @_;
	my $id = sql($publisher, q{INSERT INTO customer SELECT max(id) + 1, 'late' FROM customer RETURNING id});
	return ok(poll_sql($subscriber, "SELECT EXISTS (SELECT FROM customer WHERE id = $id)", 't', 'postgres'), $what);
}

arrives('what is written after it arrives');
is(sql($subscriber, 'SELECT count(*) FROM customer WHERE shown_name = upper(name)'), 5000, 'so have the values of the backfill');

# Every sort of write to every table of ours: control, log, failing rows, names, holds, history that is pruned.
sql($_, 'CREATE TABLE bad (id int PRIMARY KEY, text_value text, value int)') for $subscriber, $publisher;
sql($publisher, q{INSERT INTO bad VALUES (1, 'one', NULL), (2, '2', NULL)});
my $bad = sql($publisher, q{SELECT zdm.start_backfill('bad', 'value = text_value::int', 'value IS NULL', on_error => 'skip')});
ok(wait_for_state($publisher, $bad, 'failed'), 'a job with a failing row ends');
is(sql($publisher, 'SELECT count(*) FROM zdm.job_errors'), 1, 'which is recorded');
my $held = sql($publisher, q{SELECT zdm.start_backfill('customer', 'name = lower(shown_name)', paused => true)});
sql($publisher, "SELECT zdm.alter_job($held, batch_time => '10 ms')");
sql($publisher, "SELECT zdm.resume($held)");
ok(wait_for_state($publisher, $held, 'succeeded'), 'a job is enqueued, altered, resumed, and succeeds');
sql($publisher, $_) for 'SELECT zdm.pause_all()', 'SELECT zdm.resume_all()',
  q{SELECT zdm.cancel(zdm.start_backfill('customer', 'name = name || shown_name', 'name IS NULL', paused => true))};
sql($publisher, q{UPDATE bad SET text_value = '1' WHERE id = 1});
sql($publisher, "SELECT zdm.retry($bad)");
ok(wait_for_state($publisher, $bad, 'succeeded'), 'the failed job is retried');
$publisher->append_conf('postgresql.conf', "zdm.job_retention = '0'\n");
$publisher->reload;
ok( poll(
		'history to be pruned',
		sub {
			my $next = sql($publisher, q{SELECT zdm.start_backfill('bad', 'value = 3', 'value IS NULL')});
			wait_for_state($publisher, $next, 'succeeded|') or return 1;
			return sql($publisher, "SELECT count(*) = 0 FROM zdm.job WHERE job_id = $job") eq 't';
		}),
	'old jobs are deleted');
$publisher->append_conf('postgresql.conf', "zdm.job_retention = '1d'\n");
$publisher->reload;
arrives('what is written after all that arrives');
is(sql($subscriber, q{SELECT count(*) FROM customer WHERE name = lower(name) AND shown_name IS NOT NULL}), 5000, 'and what the jobs wrote');

# The extension dropped and created again, and the rest of DDL that rewrites our tables.
sql($publisher, 'DROP EXTENSION zdm_ext');
arrives('after DROP EXTENSION replication goes on');
sql($publisher, 'CREATE EXTENSION zdm_ext');
sql($publisher, 'VACUUM FULL zdm.job; VACUUM FULL zdm.job_run; CLUSTER zdm.job_event USING job_event_pkey');
my $again = sql($publisher, q{SELECT zdm.start_backfill('customer', 'shown_name = name')});
ok(wait_for_state($publisher, $again, 'succeeded'), 'a job runs after VACUUM FULL of the tables of jobs');
arrives('and replication goes on');

my @errors = log_lines($subscriber, qr/(ERROR|FATAL|PANIC|zdm|exited with exit code)/, $from);
is(scalar @errors, 0, 'the subscriber has met no error') or diag(@errors);
is(sql($subscriber, q{SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL AND relid IS NULL}), 1, 'its apply worker works');

# A subscription that comes while zdm_ext is there. The server lists an extension's tables to a new subscriber, and one
# without them is told at once, by name.
sql($subscriber, q{
ALTER SUBSCRIPTION from_publisher DISABLE;
ALTER SUBSCRIPTION from_publisher SET (slot_name = NONE);
DROP SUBSCRIPTION from_publisher});
ok(poll_sql($publisher, 'SELECT count(*) = 0 FROM pg_replication_slots WHERE active'), 'the subscription is gone');
sql($publisher, 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
sql($subscriber, 'TRUNCATE customer, visit, bad');
my $later = "CREATE SUBSCRIPTION later CONNECTION '$connection' PUBLICATION everything";
like(sql_error($subscriber, $later), qr/(3F000: schema|42P01: relation) "zdm/, 'a later subscription is refused at once where zdm_ext is missing');
sql($subscriber, 'CREATE EXTENSION zdm_ext');
is(sql_error($subscriber, $later), '', 'with zdm_ext it is taken');
ok(poll_sql($subscriber, q{SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel}), 'it copies what is there');
arrives('and replicates');
my $third = sql($publisher, q{SELECT zdm.start_backfill('customer', 'shown_name = upper(name)')});
ok(wait_for_state($publisher, $third, 'succeeded'), 'a job runs on the publisher');
arrives('and replication goes on');
cmp_ok(sql($subscriber, 'SELECT count(*) FROM customer WHERE shown_name = upper(name)'), '>=', 5000, 'what it wrote has arrived');
# The history was copied with the rest; it is not the subscriber's, which has jobs of its own.
is(sql($subscriber, "SELECT count(*) FROM zdm.jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'paused')"), 0,
	'no job has started on the subscriber');
sql($subscriber, 'CREATE TABLE own (id int, value int); INSERT INTO own SELECT i FROM generate_series(1, 10) i');
my $own = sql($subscriber, q{SELECT zdm.start_backfill('own', 'value = id')});
ok(wait_for_state($subscriber, $own, 'succeeded'), 'a job of its own runs there');
is(sql($subscriber, 'SELECT count(*) FROM own WHERE value = id'), 10, 'and does its work');
sql($subscriber, 'DROP SUBSCRIPTION later');

# --- a published table without a key: the server refuses its updates, and zdm_ext says so -------------------------------

my $enqueue = q{SELECT zdm.start_backfill('visit', 'customer = -customer', 'customer > 0', paused => true)};
like(sql_error($publisher, $enqueue),
	qr/55000: cannot update table "visit" because it does not have a replica identity and publishes updates.*HINT:.*REPLICA IDENTITY/s,
	"the call raises the server's error, with its hint");
sql($publisher, 'ALTER TABLE visit REPLICA IDENTITY FULL');
my $keyless = sql($publisher, $enqueue);
sql($publisher, 'ALTER TABLE visit REPLICA IDENTITY DEFAULT');
sql($publisher, "SELECT zdm.resume($keyless)");
ok(wait_for_state($publisher, $keyless, 'failed|succeeded'), 'a job whose table has become one such ends');
like(sql($publisher, "SELECT state || ' ' || last_error FROM zdm.jobs WHERE job_id = $keyless"),
	qr/^failed 55000: cannot update table "visit" because it does not have a replica identity and publishes updates/, 'failed, with that error');
like(sql_error($publisher, "CALL zdm.wait($keyless)"), qr/55000: .*REPLICA IDENTITY/s, 'which zdm.wait raises, hint and all');
is(sql($publisher, "SELECT count(*) FROM zdm.job_errors WHERE job_id = $keyless"), 0, 'no row is blamed');
is(sql($publisher, 'SELECT count(*) FROM visit WHERE customer < 0'), 0, 'nothing was changed');
sql($publisher, 'ALTER TABLE visit REPLICA IDENTITY FULL');
sql($publisher, "SELECT zdm.retry($keyless)");
ok(wait_for_state($publisher, $keyless, 'succeeded'), 'with a replica identity the retry succeeds');

$subscriber->stop('fast');
$publisher->stop('fast');
done_testing();
