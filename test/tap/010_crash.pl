# Whatever is killed, whenever: no row is changed twice, none is left out, and zdm.jobs tells the truth meanwhile.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use ZdmTest;

my $rows = 60_000;
my $kills_wanted = 32;
my $seed = $ENV{ZDM_TEST_SEED} || int(rand(1_000_000));
srand($seed);
diag("seed $seed: ZDM_TEST_SEED=$seed repeats the moments");

# Without preload: what brings the worker back is its registration alone.
my $node = new_node('crash');
create_work($node, $rows);
slow_down($node, 1);

# An application that moves rows meanwhile: every update leaves a new version elsewhere.
my $application = background_loop($node, <<"EOF", 2, 300);
\\set id random(1, $rows)
UPDATE item SET other = md5(random()::text) WHERE id BETWEEN :id AND :id + 2;
EOF

my $job = sql($node, "SELECT zdm.start_backfill('item', 'target = id * 2', batch_time => '5 ms')");
ok($job > 0, 'the job is enqueued');

# A process that works on the job, as zdm.jobs tells.
sub worker
{
	my $pid = '';
	poll(
		'a worker',
		sub {
			my ($status, $out) = try_sql($node, "SELECT pids[1] FROM zdm.jobs WHERE job_id = $job AND state = 'running'");
			$pid = $status == 0 ? $out : '';
			return $pid ne '';
		});
	return $pid;
}

sub rows_done
{
	my ($status, $out) = try_sql($node, "SELECT rows_done FROM zdm.jobs WHERE job_id = $job");
	return $status == 0 && $out ne '' ? $out : -1;
}

my ($terminated, $killed, $at_once, $in_a_row) = (0, 0, 0, 0);
my @lies;
my $backwards = 0;
my $most = 0;

while ($terminated + $killed < $kills_wanted)
{
	my $pid = worker();
	last if $pid eq '';

	# Some die as soon as they have begun, most somewhere in their work. Not many begin in vain one after the
	# other: five of these are the end of a job.
	if ($in_a_row < 2 && rand() < 0.3)
	{
		++$at_once;
		++$in_a_row;
		sleep rand(0.02);
	}
	else
	{
		$in_a_row = 0;
		my $before = rows_done();
		last unless poll('progress', sub { rows_done() > $before });
		sleep rand(0.25);
	}
	my $done = rows_done();
	++$backwards if $done >= 0 && $done < $most;
	$most = $done if $done > $most;

	if (rand() < 0.6)
	{
		my ($status, $out) = try_sql($node, "SELECT pg_terminate_backend($pid)");
		next unless $status == 0 && $out eq 't';
		++$terminated;
		last unless process_gone($pid);
	}
	else
	{
		my $before = ready_count($node);
		next unless kill 'KILL', $pid;
		++$killed;
		last unless wait_ready($node, $before);
	}
	# Its process is gone: nothing may say that it works.
	my ($status, $out) = try_sql($node, "SELECT state, pids FROM zdm.jobs WHERE job_id = $job AND $pid = ANY (pids)");
	push @lies, "pid $pid, which is gone: $out" if $status == 0 && $out ne '';
	# And nobody who is not there may be said to work, a moment for his going allowed.
	my $nobody = "SELECT pids FROM zdm.jobs j WHERE job_id = $job AND state = 'running'"
	  . " AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = ANY (j.pids) AND a.backend_type = 'zdm_ext runner')";
	($status, $out) = try_sql($node, $nobody);
	if ($status == 0 && $out ne '')
	{
		sleep 0.2;
		my ($again, $then) = try_sql($node, $nobody);
		push @lies, "running with pids $out" if $again == 0 && $then eq $out;
	}
}

diag("terminated $terminated, killed $killed, $at_once of them at the start; $most rows were done");
is($terminated + $killed, $kills_wanted, "the worker was killed $kills_wanted times in one job");
cmp_ok($terminated, '>=', 5, 'some by pg_terminate_backend');
cmp_ok($killed, '>=', 5, 'some by SIGKILL, and the server with them');
is_deeply(\@lies, [], 'zdm.jobs never showed a process that is gone');
is($backwards, 0, 'rows_done never went back');
like(job_state($node, $job), qr/^(running|queued|interrupted)$/, 'the job has outlived them');

slow_down($node, 0);
ok(wait_for_state($node, $job, 'succeeded'), 'the job succeeds');
stop_loop($application);

is(audit_problems($node, 'item', $job), '', 'each row was changed exactly once');
is(sql($node, "SELECT rows_done FROM zdm.jobs WHERE job_id = $job"), $rows, 'rows_done is exact');
cmp_ok(sql($node, "SELECT attempts FROM zdm.jobs WHERE job_id = $job"), '>=', $kills_wanted / 2, 'attempts were counted');
cmp_ok(sql($node, "SELECT count(DISTINCT pid) FROM change"), '>', 10, 'many processes have shared the work');
cmp_ok(sql($node, "SELECT count(*) FROM item WHERE other <> repeat('x', 20)"), '>', 100, 'the application has worked meanwhile');
is(sql($node, "SELECT count(*) FROM zdm.job_log WHERE job_id = $job AND event = 'succeeded'"), 1, 'it succeeded once');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'no worker is left');

# The end of a job dies as well: in its last look over the relation, which keeps no cursor.
sql($node, q{
CREATE FUNCTION looks_long(target int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(0.001);
	RETURN target IS NULL;
END $$});
add_work($node, 'small', 1500);
my $last = sql($node, "SELECT zdm.start_backfill('small', 'target = id * 2', 'looks_long(target)')");
for my $round (1 .. 4)
{
	my $pid = '';
	my $look = "SELECT pids[1] FROM zdm.jobs WHERE job_id = $last AND state = 'running' AND phase = 'last look'";
	ok( poll('the last look', sub { (my $status, $pid) = try_sql($node, $look); $status == 0 && $pid ne '' }),
		"the last look has begun, round $round");
	sleep rand(0.3);
	if ($round % 2)
	{
		is(sql($node, "SELECT pg_terminate_backend($pid)"), 't', "it is ended, round $round");
		process_gone($pid);
	}
	else
	{
		my $before = ready_count($node);
		is(kill('KILL', $pid), 1, "it is killed, round $round");
		wait_ready($node, $before);
	}
}
ok(wait_for_state($node, $last, 'succeeded'), 'the job succeeds');
is(audit_problems($node, 'small', $last), '', 'each row was changed exactly once');

$node->stop('fast');
done_testing();
