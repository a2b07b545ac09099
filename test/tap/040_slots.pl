# Worker slots that run out: a job without one stays queued, says so, makes no noise, and starts when there is one.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use ZdmTest;

# Every worker of the server is of the sort that the test counts, and there are few.
sub server_with_slots
{
	my ($name, $slots, %arg) = @_;
	my $node = new_node($name, %arg, conf => "max_worker_processes = $slots\nmax_parallel_workers = 0\n");
	sql($node, 'CREATE DATABASE full_db');
	sql($node, 'CREATE EXTENSION zdm_ext', 'full_db');
	create_work($node, 300, $_) for qw(postgres full_db);
	return $node;
}

sub work
{
	my ($table) = @_;
	return "SELECT zdm.start_backfill('$table', 'target = id * 2', batch_time => '20 ms')";
}

# Occupies one slot for good; returns what ends that.
sub occupy
{
	my ($node) = @_;
	slow_down($node, 200, 'full_db');
	my $job = sql($node, work('item'), 'full_db');
	ok(wait_for_state($node, $job, 'running', 'full_db'), 'a job of another database has the slot');
	return sub {
		slow_down($node, 0, 'full_db');
		return wait_for_state($node, $job, 'succeeded', 'full_db');
	};
}

sub waits_for_slot
{
	my ($node, $job) = @_;
	ok( poll_sql($node, "SELECT state = 'queued' AND waiting_for LIKE 'worker_slot:%' FROM zdm.jobs WHERE job_id = $job"),
		'a job without a slot is queued and says so')
	  or diag(job_row($node, $job));
	return;
}

# --- without preload: the next call, or whoever waits, starts it --------------------------------------------------------

# One slot is the server's own (the logical replication launcher).
my $node = server_with_slots('plain', 2);
my $release = occupy($node);
my $from = log_size($node);
my ($status, $out, $err) = try_sql($node, work('item'));
is($status, 0, 'a call that finds no slot succeeds');
like($err, qr/WARNING: .*no background worker slot is free.*HINT: .*max_worker_processes/s, 'and warns, with a hint');
my $job = $out;
waits_for_slot($node, $job);
like(sql($node, "SELECT waiting_for FROM zdm.jobs WHERE job_id = $job"), qr/max_worker_processes = 2/, 'with the limit');
sleep 3;
my @lines = log_lines($node, qr/./, $from);
cmp_ok(scalar @lines, '<', 15, 'without noise in the log') or diag(@lines);
is(job_state($node, $job), 'queued', 'it is not lost');

# Whoever waits for it meanwhile gets his own timeout, and harms nothing.
like(sql_error($node, "CALL zdm.wait($job, timeout => '1500 ms')"), qr/ZD008/, 'zdm.wait ends at its timeout');
is(job_state($node, $job), 'queued', 'the job is still queued');

ok($release->(), 'the other job ends');
is(sql_error($node, "CALL zdm.wait($job, timeout => '90 s')"), '', 'then CALL zdm.wait starts the job, and sees it succeed');
is(audit_problems($node, 'item', $job), '', 'each row was changed exactly once');

add_work($node, $_, 100) for qw(second third);
$release = occupy_again($node);
my $second;
($status, $second) = try_sql($node, work('second'));
waits_for_slot($node, $second);
ok($release->(), 'the other job ends');
my $third = sql($node, work('third'));
ok(wait_for_state($node, $_, 'succeeded'), 'the next call that enqueues starts what waited as well') for $second, $third;
$node->stop('fast');

sub occupy_again
{
	my ($node) = @_;
	sql($node, 'DROP TABLE item; TRUNCATE change', 'full_db');
	add_work($node, 'item', 300, 'full_db');
	return occupy($node);
}

# --- with preload: by itself ----------------------------------------------------------------------------------------------

# Two slots are static: the logical replication launcher's and zdm_ext's own.
$node = server_with_slots('preload', 3, preload => 1);
$release = occupy($node);
$from = log_size($node);
($status, $job) = try_sql($node, work('item'));
is($status, 0, 'a call that finds no slot succeeds');
waits_for_slot($node, $job);
# Looks for a slot are made less and less often, and none of them is worth a line in the log.
sleep 5;
@lines = log_lines($node, qr/./, $from);
cmp_ok(scalar @lines, '<', 15, 'without noise in the log') or diag(@lines);
is(job_state($node, $job), 'queued', 'it is not lost');
ok($release->(), 'the other job ends');
ok(wait_for_state($node, $job, 'succeeded'), 'the job starts by itself, and succeeds');
is(audit_problems($node, 'item', $job), '', 'each row was changed exactly once');
is(scalar log_lines($node, qr/(ERROR|FATAL|PANIC)/, $from), 0, 'no errors in the log');

# Jobs of several databases queue for the one slot, also after a restart.
$release = occupy_again($node);
my %queued;
for my $n (1 .. 2)
{
	sql($node, "CREATE DATABASE queue_$n");
	sql($node, 'CREATE EXTENSION zdm_ext', "queue_$n");
	create_work($node, 100, "queue_$n");
	($status, $queued{"queue_$n"}) = try_sql($node, work('item'), "queue_$n");
}
$node->restart;
ok($release->(), 'the job that has the slot ends');
for my $database (sort keys %queued)
{
	ok(wait_for_state($node, $queued{$database}, 'succeeded', $database), "the job of $database succeeds");
	is(audit_problems($node, 'item', $queued{$database}, $database), '', 'each row was changed exactly once');
}
$node->stop('fast');

# A database whose jobs cannot go on does not take the slot from the others each time. Of two slots one belongs to a long
# job; a job of another role waits for its turn on the same table; and one in another database could work.
$node = server_with_slots('fair', 4, preload => 1);
sql($node, q{
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
GRANT USAGE ON SCHEMA zdm TO alice, bob;
GRANT SELECT ON change_pause TO PUBLIC;
GRANT INSERT ON change TO PUBLIC;
GRANT SELECT, UPDATE ON item TO alice, bob});
slow_down($node, 1000);
slow_down($node, 100, 'full_db');
my $long = sql($node, work('item'), 'postgres', 'alice');
ok(wait_for_state($node, $long, 'running'), 'a long job works');
my $turn = sql($node, q{SELECT zdm.start_backfill('item', 'other = id::text')}, 'postgres', 'bob');
my $elsewhere = sql($node, work('item'), 'full_db');
ok(wait_for_state($node, $elsewhere, 'running', 'full_db'), 'one of another database, too');
is(job_state($node, $turn), 'queued', 'the third has to wait');
$node->restart;
ok(wait_for_state($node, $elsewhere, 'succeeded', 'full_db'), 'after a restart the other database has its slot, and its job succeeds');
is(audit_problems($node, 'item', $elsewhere, 'full_db'), '', 'each row was changed exactly once');
ok(wait_for_state($node, $long, 'running'), 'the long one goes on as well');
slow_down($node, 0);
ok(wait_for_state($node, $_, 'succeeded'), 'and all succeed') for $long, $turn;
is(audit_problems($node, 'item', $long), '', 'each row was changed exactly once');
$node->stop('fast');

# --- zdm.max_workers ----------------------------------------------------------------------------------------------------

$node = new_node('bounded', conf => "zdm.max_workers = 1\n");
create_work($node, 200);
sql($node, q{
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
GRANT USAGE ON SCHEMA zdm TO alice, bob;
GRANT SELECT ON change_pause TO PUBLIC;
GRANT INSERT ON change TO PUBLIC});
slow_down($node, 20);
my @jobs;
for my $n (1 .. 3)
{
	for my $role (qw(alice bob))
	{
		my $table = "${role}_$n";
		add_work($node, $table, 200);
		sql($node, "GRANT SELECT, UPDATE ON $table TO $role");
		push @jobs, [ $table, sql($node, work($table), 'postgres', $role) ];
	}
}
my ($most, $runners, $left, $said) = (0, 0, 1, 0);
poll(
	'the jobs of two roles',
	sub {
		# A process that is told that there is no room for it comes and goes: what counts is who works.
		($runners, my $active, my $waiting, $left) = split /\|/,
		  sql($node, q{SELECT (SELECT count(*) FROM zdm.jobs WHERE workers > 0),
		               (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'zdm_ext runner' AND query LIKE 'zdm job %' AND state = 'active'),
		               (SELECT count(*) FROM zdm.jobs WHERE waiting_for LIKE 'worker_slot: %zdm.max_workers = 1%'),
		               (SELECT count(*) FROM zdm.jobs WHERE state NOT IN ('succeeded', 'failed'))});
		$most = $runners if $runners > $most;
		$most = $active if $active > $most;
		$said = 1 if $waiting > 0;
		return $left == 0;
	});
is($left, 0, 'with zdm.max_workers = 1 the jobs of two roles all end');
is($most, 1, 'never more than one process worked');
ok($said, 'the others said what they waited for');
is(audit_problems($node, @$_), '', "each row of $_->[0] was changed exactly once") for @jobs;
is(sql($node, "SELECT string_agg(DISTINCT state, ',') FROM zdm.jobs"), 'succeeded', 'all have succeeded');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'no worker is left');

# What waits behind another role's job says so, and an older one is not overtaken for ever.
is( sql($node, q{SELECT count(*) FROM (SELECT job_id, lag(started_at) OVER (ORDER BY job_id) > started_at AS overtook FROM zdm.jobs) j
                 WHERE overtook}),
	0, 'they ran in the order they were enqueued');
$node->stop('fast');

done_testing();
