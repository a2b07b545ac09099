# Ended jobs leave the history after zdm.job_retention; a succeeded job's name is remembered longer. Unfinished jobs stay.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use ZdmTest;

my $node = new_node('history');
sql($node, 'CREATE TABLE item (a int, target int); INSERT INTO item VALUES (1)');

my $first = sql($node, q{SELECT zdm.start_backfill('item', 'target = a', name => 'first')});
ok(wait_for_state($node, $first, 'succeeded'), 'a job succeeds');
my $held = sql($node, q{SELECT zdm.start_backfill('item', 'target = a + 1', name => 'held', paused => true)});
is(sql($node, 'SELECT count(*) FROM zdm.jobs'), '2', 'within the retention everything is shown');

$node->append_conf('postgresql.conf', 'zdm.job_retention = 0');
$node->reload;
my $name = 'later';
# A runner that finds nothing more to do prunes; the reload reaches the server in its own time.
ok( poll('the history to be pruned', sub {
		$name .= 'r';
		my $job = sql($node, qq{SELECT zdm.start_backfill('item', 'target = a', name => '$name')});
		poll_sql($node, "SELECT count(*) = 0 FROM zdm.jobs WHERE job_id = $job AND state <> 'succeeded'");
		return sql($node, "SELECT count(*) FROM zdm.jobs WHERE job_id = $first") eq '0';
	}),
	'an ended job leaves the history');
is(sql($node, "SELECT count(*) FROM zdm.job_event WHERE job_id = $first"), '0', 'with its log');
is(sql_error($node, q{SELECT zdm.require('first')}), '', 'its name is remembered as succeeded');
is(sql($node, q{SELECT zdm.start_backfill('item', 'target = a', name => 'first')}), $first, 'the same call returns the same id');
is(job_state($node, $held), 'paused', 'an unfinished job stays');

$node->stop;
done_testing();
