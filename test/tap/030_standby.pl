# A standby shows what was recorded and changes nothing; promoted, it goes on where the primary was.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use ZdmTest;

my $rows = 10_000;

# A primary with a running job and jobs in other states, and a standby of it.
sub make_pair
{
	my ($name, %arg) = @_;
	my $primary = new_node("primary_$name", streaming => 1, %arg);
	create_work($primary, $rows);
	add_work($primary, 'done', 100);
	add_work($primary, 'held', 100);
	slow_down($primary, 5);
	my %job;
	$job{done} = sql($primary, q{SELECT zdm.start_backfill('done', 'target = id * 2', name => 'done')});
	$job{held} = sql($primary, q{SELECT zdm.start_backfill('held', 'target = id * 2', paused => true)});
	wait_for_state($primary, $job{done}, 'succeeded') or die 'the first job did not end';

	$primary->backup('backup');
	my $standby = PostgreSQL::Test::Cluster->new("standby_$name");
	$standby->init_from_backup($primary, 'backup', has_streaming => 1);
	$standby->start;

	$job{item} = sql($primary, q{SELECT zdm.start_backfill('item', 'target = id * 2', batch_time => '5 ms')});
	ok(poll_sql($primary, "SELECT rows_done > 100 FROM zdm.jobs WHERE job_id = $job{item}"), 'the job works on the primary');
	# Batches commit asynchronously: ask until they are there.
	ok(poll_sql($standby, "SELECT coalesce((SELECT rows_done > 100 FROM zdm.jobs WHERE job_id = $job{item}), false)"),
		'the standby follows');
	return ($primary, $standby, %job);
}

# --- with preload -------------------------------------------------------------------------------------------------

my ($primary, $standby, %job) = make_pair('preload', preload => 1);

is( sql($standby, 'SELECT job_id, state, workers, pids FROM zdm.jobs ORDER BY job_id'),
	"$job{done}|succeeded|0|{}\n$job{held}|paused|0|{}\n$job{item}|running|0|{}",
	'the standby shows the recorded states');
is(sql($standby, "SELECT count(*) FROM zdm.progress WHERE job_id = $job{item}"), 1, 'zdm.progress answers there');
cmp_ok(sql($standby, "SELECT count(*) FROM zdm.job_log WHERE job_id = $job{item}"), '>=', 2, 'and zdm.job_log');
is(sql($standby, "SELECT zdm.require('done')"), '', 'and zdm.require');
is(runner_pids($standby), 0, 'no runner there');
is(sql($standby, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'zdm_ext%'"), 0, 'nor any other process');

for my $call (
	"zdm.pause($job{item})",
	"zdm.resume($job{held})",
	"zdm.cancel($job{item})",
	"zdm.retry($job{done})",
	'zdm.pause_all()',
	'zdm.resume_all()',
	"zdm.alter_job($job{item}, batch_time => '1 s')",
	q{zdm.start_backfill('held', 'target = 0')},
	q{zdm.start_backfill('held', 'target = 0', name => 'done')})
{
	my $error = sql_error($standby, "SELECT $call");
	like($error, qr/25006: cannot execute .+ during recovery/, "$call is refused on a standby");
}
like(sql_error($standby, "CALL zdm.wait($job{item}, timeout => '1 s')"), qr/(ZD008|25006)/, 'zdm.wait ends there with an error of its own');
is(sql_error($standby, "CALL zdm.wait($job{done})"), '', 'and with none for a job that has succeeded');

# The primary is gone, the standby takes over.
$primary->stop('immediate');
is(job_state($standby, $job{item}), 'running', 'without the primary the recorded state is still shown');
my $from = log_size($standby);
$standby->promote;
ok( poll_sql($standby, "SELECT state = 'running' AND attempts = 2 FROM zdm.jobs WHERE job_id = $job{item}"),
	'promoted, it takes the job up by itself')
  or diag(job_row($standby, $job{item}));
cmp_ok(sql($standby, "SELECT rows_done FROM zdm.jobs WHERE job_id = $job{item}"), '>', 100, 'from where it was');
slow_down($standby, 0);
ok(wait_for_state($standby, $job{item}, 'succeeded'), 'which succeeds');
is(audit_problems($standby, 'item', $job{item}), '', 'each row was changed exactly once');
is(job_state($standby, $job{held}), 'paused', 'the paused job stays paused');
is(sql($standby, "SELECT zdm.resume($job{held})"), 'queued', 'control works now');
ok(wait_for_state($standby, $job{held}, 'succeeded'), 'and it succeeds');
is(sql($standby, "SELECT state FROM zdm.jobs WHERE job_id = $job{done}"), 'succeeded', 'what was done is done');
is(scalar log_lines($standby, qr/(PANIC|FATAL|ERROR):/, $from), 0, 'nothing was amiss in the log')
  or diag(log_lines($standby, qr/(PANIC|FATAL|ERROR):/, $from));
$standby->stop('fast');

# --- without --------------------------------------------------------------------------------------------------------

($primary, $standby, %job) = make_pair('plain');
is(job_state($standby, $job{item}), 'running', 'the standby shows the recorded state');
$primary->stop('immediate');
$standby->promote;
is(job_state($standby, $job{item}), 'interrupted', 'promoted, it shows the job as interrupted');
is(runner_pids($standby), 0, 'and nothing has taken it up');
slow_down($standby, 0);
is(sql($standby, "SELECT zdm.resume($job{item})"), 'queued', 'zdm.resume does');
ok(wait_for_state($standby, $job{item}, 'succeeded'), 'and it succeeds');
is(audit_problems($standby, 'item', $job{item}), '', 'each row was changed exactly once');
$standby->stop('fast');

done_testing();
