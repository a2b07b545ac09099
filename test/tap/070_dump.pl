# A restored dump keeps the history of jobs, starts none of them, and lets whoever wants adopt one.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use ZdmTest;

# With preload, where jobs would start if they could.
my $node = new_node('dumped', preload => 1, extension => 0);
my $other = new_node('other', preload => 1, extension => 0);

# Roles come before the dump, as pg_dumpall would have it. Their oids differ, and one is missing.
sql($node, 'CREATE ROLE app LOGIN; CREATE ROLE gone LOGIN');
sql($other, 'CREATE ROLE filler; CREATE ROLE filler2; CREATE ROLE app LOGIN');

sql($node, 'CREATE DATABASE app');
sql($node, 'CREATE EXTENSION zdm_ext; GRANT USAGE ON SCHEMA zdm TO app, gone', 'app');
create_work($node, 2000, 'app');
add_work($node, $_, 200, 'app') for qw(done half waiting bad), '"Odd Name"';
sql($node, q{
CREATE TABLE orphan (id int, target int);
INSERT INTO orphan VALUES (1);
GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO app, gone;
GRANT INSERT ON change TO app, gone;
UPDATE bad SET other = 'x' WHERE id = 7}, 'app');

my %job;
my $done_call = q{SELECT zdm.start_backfill('done', 'target = id * 2', name => 'the done one')};
$job{done} = sql($node, $done_call, 'app', 'app');
ok(wait_for_state($node, $job{done}, 'succeeded', 'app'), 'one job has succeeded');
my $odd_call = q{SELECT zdm.start_backfill('"Odd Name"', 'target = id * 2', name => 'the odd one')};
$job{odd} = sql($node, $odd_call, 'app', 'app');
ok(wait_for_state($node, $job{odd}, 'succeeded', 'app'), 'another on a table with a name to be quoted');
$job{bad} = sql($node, q{SELECT zdm.start_backfill('bad', 'target = 10 / (id - 7)', 'target IS NULL', name => 'the bad one')}, 'app', 'app');
ok(wait_for_state($node, $job{bad}, 'failed', 'app'), 'one has failed');
slow_down($node, 20, 'app');
my $half_call = q{SELECT zdm.start_backfill('half', 'target = id * 2', name => 'the paused one', batch_time => '20 ms')};
$job{half} = sql($node, $half_call, 'app', 'app');
ok(poll_sql($node, "SELECT rows_done > 0 FROM zdm.jobs WHERE job_id = $job{half}", 't', 'app'), 'one works');
sql($node, "SELECT zdm.pause($job{half})", 'app', 'app');
ok(wait_for_state($node, $job{half}, 'paused', 'app'), 'and is paused');
my $item_call = q{SELECT zdm.start_backfill('item', 'target = id * 2', name => 'the running one', batch_time => '20 ms')};
$job{item} = sql($node, $item_call, 'app');
$job{waiting} = sql($node, qq{SELECT zdm.start_backfill('waiting', 'target = id * 2', depends_on => ARRAY[$job{item}])}, 'app');
$job{orphan} = sql($node, q{SELECT zdm.start_backfill('orphan', 'target = id * 2', paused => true)}, 'app', 'gone');
ok(poll_sql($node, "SELECT rows_done > 0 FROM zdm.jobs WHERE job_id = $job{item}", 't', 'app'), 'one runs during the dump');

my $dump = PostgreSQL::Test::Utils::tempdir() . '/app.sql';
my $before = '';
sub dump_app
{
	my ($out, $err) = ('', '');
	my $done = IPC::Run::run([ 'pg_dump', '-d', $node->connstr('app'), '-f', $dump ], '>', \$out, '2>', \$err);
	ok($done, 'pg_dump succeeds') or diag($err);
	$before = sql($node, history(), 'app');
	return;
}

# What must be the same after a restore.
sub history
{
	return qq{
SELECT job_id, name, kind, relation, state, rows_done, last_error, owner, finished_at, depends_on FROM zdm.jobs
WHERE job_id IN ($job{done}, $job{odd}, $job{bad}, $job{half}) ORDER BY 1;
SELECT job_id, at, event, message FROM zdm.job_log WHERE job_id IN ($job{done}, $job{odd}, $job{bad}, $job{half}) ORDER BY 1, 2;
SELECT job_id, relation, key, sqlstate, message FROM zdm.job_errors};
}

sub restore
{
	my ($where, $database) = @_;
	my ($out, $err) = ('', '');
	sql($where, "CREATE DATABASE $database");
	my $done = IPC::Run::run(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $where->connstr($database), '-f', $dump ], '>', \$out, '2>', \$err);
	return ($done, $err);
}

# Everything that is expected of a restored database.
sub check_restored
{
	my ($what, $where, $database, %arg) = @_;
	is(sql($where, history(), $database), $before, "$what: the history is as it was");
	is( sql($where, q{SELECT string_agg(format('%s %s %s', job_id, state, split_part(waiting_for, ':', 1)), ', ' ORDER BY job_id)
	                  FROM zdm.jobs WHERE state NOT IN ('succeeded', 'failed')}, $database),
		join(', ', map { "$job{$_} paused copy" } sort { $job{$a} <=> $job{$b} } qw(half item waiting orphan)),
		"$what: what was not done is parked");
	slow_down($where, 0, $database);

	# Names are remembered, and their jobs with them.
	is(sql($where, $done_call, $database, 'app'), $job{done}, "$what: a call that was done is done");
	is(sql($where, $odd_call, $database, 'app'), $job{odd}, "$what: also with a quoted name");
	is(sql($where, "SELECT zdm.require('the done one')", $database, 'app'), '', "$what: zdm.require knows it");
	is(sql($where, $item_call, $database), $job{item}, "$what: and one that is not done is the parked job");
	like(sql_error($where, q{SELECT zdm.start_backfill('done', 'target = id * 3', name => 'the done one')}, $database, 'app'),
		qr/42710: job name "the done one" belongs to job $job{done}/, "$what: another definition is still an error");
	like(sql_error($where, q{SELECT zdm.start_backfill('half', 'target = id * 2', name => 'the done one')}, $database, 'app'),
		qr/42710: job name "the done one" belongs to job $job{done}/, "$what: another relation as well");
	like(sql_error($where, $done_call, $database), qr/42710: job name "the done one" belongs to another role/, "$what: another role too");

	# New jobs begin, old ones do not.
	sql($where, 'CREATE TABLE fresh (id int, value int); INSERT INTO fresh VALUES (1)', $database);
	my $fresh = sql($where, q{SELECT zdm.start_backfill('fresh', 'value = id', name => 'fresh')}, $database);
	cmp_ok($fresh, '>', $job{orphan}, "$what: a new job has a new id");
	ok(wait_for_state($where, $fresh, 'succeeded', $database), "$what: and runs");
	$where->restart if $arg{restart};
	sleep 1.5;
	is(sql($where, q{SELECT count(*) FROM zdm.jobs WHERE state = 'paused'}, $database), 4, "$what: nothing has started by itself");
	is(sql($where, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'zdm_ext runner' AND datname = '$database'"), 0,
		"$what: there is no worker");

	# Adoption.
	is(sql($where, "SELECT zdm.resume($job{half})", $database, 'app'), 'queued', "$what: its owner adopts a job");
	ok(wait_for_state($where, $job{half}, 'succeeded', $database), "$what: which succeeds");
	is(audit_problems($where, 'half', $job{half}, $database), '', "$what: each row was changed exactly once");
	is(sql($where, $half_call, $database, 'app'), $job{half}, "$what: its name is still its own");
	is(job_state($where, $job{item}, $database), 'paused', "$what: the others are still parked");
	is(sql($where, "SELECT zdm.cancel($job{waiting})", $database), 'cancelled', "$what: one can be cancelled");
	is(sql($where, "SELECT zdm.resume($job{item})", $database), 'queued', "$what: another adopted");
	ok(wait_for_state($where, $job{item}, 'succeeded', $database), "$what: which succeeds");
	is(sql($where, 'SELECT count(*) FROM item WHERE target IS DISTINCT FROM id * 2', $database), 0, "$what: all rows are done");
	is(sql($where, "SELECT zdm.retry($job{waiting})", $database), 'queued', "$what: the cancelled one is retried");
	sql($where, "SELECT zdm.resume($job{waiting})", $database) if job_state($where, $job{waiting}, $database) eq 'paused';
	ok(wait_for_state($where, $job{waiting}, 'succeeded', $database), "$what: and succeeds after the job it depends on");
	sql($where, q{UPDATE bad SET id = 1000 WHERE id = 7}, $database);
	is(sql($where, "SELECT zdm.retry($job{bad})", $database, 'app'), 'queued', "$what: the failed job is retried");
	ok(wait_for_state($where, $job{bad}, 'succeeded', $database), "$what: and succeeds");
	is(sql($where, "SELECT count(*) FROM zdm.jobs WHERE owner = 'gone' AND state = 'paused'", $database), 1, "$what: the last one waits");
	return;
}

dump_app();

my ($done, $error) = restore($node, 'second');
ok($done, 'it is restored into another database') or diag($error);
check_restored('another database', $node, 'second', restart => 1);
is(sql($node, "SELECT zdm.resume($job{orphan})", 'second'), 'queued', 'a superuser adopts the job of another role');
ok(wait_for_state($node, $job{orphan}, 'succeeded', 'second'), 'which succeeds');

# The original went on after the restart, on its own.
slow_down($node, 0, 'app');
ok(wait_for_state($node, $job{item}, 'succeeded', 'app'), 'the original goes on');
is(audit_problems($node, 'item', $job{item}, 'app'), '', 'each of its rows was changed exactly once');
ok(wait_for_state($node, $job{waiting}, 'succeeded', 'app'), 'and so does what depended on it');

is(sql_error($node, 'DROP DATABASE app'), '', 'the original is dropped');
($done, $error) = restore($node, 'app');
ok($done, 'it is restored into a new database of its name') or diag($error);
check_restored('the same name', $node, 'app');

sql($node, 'DROP TABLE orphan', 'app');
like(sql_error($node, "SELECT zdm.resume($job{orphan})", 'app'), qr/42P01: the relation of job $job{orphan} does not exist here.*HINT/s,
	'a job whose relation is gone cannot be adopted');

($done, $error) = restore($other, 'app');
like($error, qr/role "gone" does not exist/, 'another cluster has not all roles');
sql($other, 'DROP DATABASE app');
# As a DBA would go on: without the grants to that role.
my $text = slurp_file($dump);
$text =~ s/^GRANT .* TO gone;$//mg;
unlink $dump;
append_to_file($dump, $text);
($done, $error) = restore($other, 'app');
ok($done, 'it is restored into another cluster') or diag($error);
check_restored('another cluster', $other, 'app', restart => 1);
like(sql_error($other, "SELECT zdm.resume($job{orphan})", 'app'), qr/42704: the role that owned job $job{orphan} does not exist here.*HINT/s,
	'a job whose role does not exist there cannot be adopted');
is(sql($other, "SELECT zdm.cancel($job{orphan})", 'app'), 'cancelled', 'but cancelled');

$node->stop('fast');
$other->stop('fast');
done_testing();
