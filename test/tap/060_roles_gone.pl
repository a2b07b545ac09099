# The role of a job is dropped, may not log in or connect any more, or has another name: the job is parked and says why,
# without noise, or goes on.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use ZdmTest;

my $node = new_node('roles', preload => 1);
create_work($node, 10);
sql($node, 'GRANT SELECT ON change_pause TO PUBLIC; GRANT INSERT ON change TO PUBLIC');
slow_down($node, 5);

my $number = 0;

# A job of a role of its own, at work.
sub job_of
{
	my ($role) = @_;
	my $table = 'work_of_' . ++$number;
	sql($node, "CREATE ROLE $role LOGIN; GRANT USAGE ON SCHEMA zdm TO $role");
	add_work($node, $table, 5000);
	sql($node, "ALTER TABLE $table OWNER TO $role");
	my $job = sql($node, "SELECT zdm.start_backfill('$table', 'target = id * 2', batch_time => '20 ms')", 'postgres', $role);
	ok(poll_sql($node, "SELECT state = 'running' AND rows_done > 0 FROM zdm.jobs WHERE job_id = $job"), "a job of $role works");
	return ($table, $job);
}

sub end_worker
{
	my ($job) = @_;
	my ($pid) = sql($node, "SELECT pids[1] FROM zdm.jobs WHERE job_id = $job AND workers > 0");
	return if $pid eq '';
	sql($node, "SELECT pg_terminate_backend($pid)");
	process_gone($pid);
	return;
}

# Parked for this reason, and quiet about it: over some restart intervals of a worker, and restarts of the server.
sub parked
{
	my ($job, $why, $from) = @_;
	ok( poll_sql($node, "SELECT state IN ('queued', 'interrupted') AND waiting_for LIKE 'role: $why' FROM zdm.jobs WHERE job_id = $job"),
		"the job is parked: role: $why")
	  or diag(job_row($node, $job));
	is(sql($node, "SELECT workers FROM zdm.jobs WHERE job_id = $job"), 0, 'nobody works on it');
	sleep 2;
	my $size = log_size($node);
	sleep 2.5;
	my @lines = log_lines($node, qr/(FATAL|ERROR|zdm)/, $size);
	is(scalar @lines, 0, 'its worker is not started again and again') or diag(@lines);
	@lines = log_lines($node, qr/(FATAL|ERROR|PANIC):/, $from);
	cmp_ok(scalar @lines, '<=', 3, 'few errors in all') or diag(@lines);

	# Calls that start work, and a restart, do not stir it.
	sql($node, 'CREATE TABLE IF NOT EXISTS other (id int, value int); TRUNCATE other; INSERT INTO other VALUES (1)');
	my $other = sql($node, "SELECT zdm.start_backfill('other', 'value = 1')");
	ok(wait_for_state($node, $other, 'succeeded'), 'jobs of other roles run');
	$size = log_size($node);
	$node->restart;
	$other = sql($node, "SELECT zdm.start_backfill('other', 'value = 2')");
	ok(wait_for_state($node, $other, 'succeeded'), 'also after a restart');
	like(sql($node, "SELECT waiting_for FROM zdm.jobs WHERE job_id = $job"), qr/^role: /, 'the job is still parked');
	@lines = log_lines($node, qr/(FATAL|ERROR|PANIC):/, $size);
	@lines = grep { !/terminating (background worker|connection)/ } @lines;
	cmp_ok(scalar @lines, '<=', 2, 'with few errors') or diag(@lines);
	return;
}

sub goes_on
{
	my ($table, $job) = @_;
	slow_down($node, 0);
	ok(wait_for_state($node, $job, 'succeeded'), 'the job succeeds');
	is(audit_problems($node, $table, $job), '', 'each row was changed exactly once');
	slow_down($node, 5);
	return;
}

# --- NOLOGIN ----------------------------------------------------------------------------------------------------------

my ($table, $job) = job_of('nina');
my $from = log_size($node);
sql($node, 'ALTER ROLE nina NOLOGIN');
end_worker($job);
parked($job, 'nina may not log in', $from);
sql($node, 'ALTER ROLE nina LOGIN');
like(sql($node, "SELECT zdm.resume($job)"), qr/^(queued|running)$/, 'with LOGIN again, zdm.resume takes it up');
goes_on($table, $job);

# --- CONNECT ----------------------------------------------------------------------------------------------------------

($table, $job) = job_of('conny');
$from = log_size($node);
sql($node, 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
end_worker($job);
parked($job, 'conny may not connect to database postgres', $from);
sql($node, 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');
like(sql($node, "SELECT zdm.resume($job)"), qr/^(queued|running)$/, 'with CONNECT again, zdm.resume takes it up');
goes_on($table, $job);

# --- another name -----------------------------------------------------------------------------------------------------

($table, $job) = job_of('"Old Name"');
sql($node, 'ALTER ROLE "Old Name" RENAME TO "New Name"');
is(sql($node, "SELECT owner FROM zdm.jobs WHERE job_id = $job"), 'New Name', 'zdm.jobs shows the new name of a role');
end_worker($job);
ok(poll_sql($node, "SELECT state = 'running' AND attempts = 2 FROM zdm.jobs WHERE job_id = $job"), 'a new worker takes the job up');
goes_on($table, $job);
is(sql($node, "SELECT count(*) FROM zdm.jobs WHERE job_id = $job", 'postgres', '"New Name"'), 1, 'who has the new name sees the job');

# --- dropped ------------------------------------------------------------------------------------------------------------

sub drop_role
{
	my ($role) = @_;
	return sql_error($node, "REASSIGN OWNED BY $role TO postgres; DROP OWNED BY $role; DROP ROLE $role");
}

($table, $job) = job_of('paula');
sql($node, "SELECT zdm.pause($job)");
ok(wait_for_state($node, $job, 'paused'), 'a job is paused');
$from = log_size($node);
is(drop_role('paula'), '', 'its role is dropped');
is(sql($node, "SELECT owner FROM zdm.jobs WHERE job_id = $job"), 'paula', 'zdm.jobs still knows the name');
sql($node, "SELECT zdm.resume($job)");
parked($job, 'paula is gone', $from);
is(sql($node, "SELECT zdm.cancel($job)"), 'cancelled', 'it can be cancelled');
is(job_state($node, $job), 'cancelled', 'and is');

($table, $job) = job_of('rita');
$from = log_size($node);
is(drop_role('rita'), '', 'the role of a running job is dropped');
# Its rights on the table go first: a batch that begins before the role itself is gone has failed for good.
ok(wait_for_state($node, $job, 'failed|queued'), 'the job stops');
like(sql($node, "SELECT concat_ws(' ', state, last_error, waiting_for) FROM zdm.jobs WHERE job_id = $job"),
	qr/^(failed 42501: permission denied for table $table|queued .*role: rita is gone)/, 'and says why');
my $done = sql($node, 'SELECT count(*) FROM change');
sleep 2.5;
is(sql($node, 'SELECT count(*) FROM change'), $done, 'nothing is changed in its name any more');
is(sql($node, "SELECT attempts FROM zdm.jobs WHERE job_id = $job"), 1, 'and nobody tries, though its worker was still connected');
my @lines = log_lines($node, qr/(FATAL|ERROR|PANIC):/, $from);
cmp_ok(scalar @lines, '<=', 3, 'few errors in the log') or diag(@lines);

# --- a membership that is taken away ---------------------------------------------------------------------------------------

sql($node, q{
CREATE ROLE holder NOLOGIN;
CREATE ROLE member LOGIN;
GRANT holder TO member;
GRANT USAGE ON SCHEMA zdm TO holder});
add_work($node, 'held', 200);
sql($node, 'ALTER TABLE held OWNER TO holder');
slow_down($node, 0);
$job = sql($node, q{SET ROLE holder; SELECT zdm.start_backfill('held', 'target = id * 2', paused => true)}, 'postgres', 'member');
sql($node, 'REVOKE holder FROM member');
sql($node, "SELECT zdm.resume($job)");
ok(wait_for_state($node, $job, 'failed'), 'a job whose user may not become its role any more fails');
like(sql($node, "SELECT last_error FROM zdm.jobs WHERE job_id = $job"), qr/^42501: .*may no longer become/, 'with the reason');
is(sql($node, 'SELECT count(*) FROM held WHERE target IS NOT NULL'), 0, 'nothing was changed');
sql($node, 'GRANT holder TO member');
is(sql($node, "SELECT zdm.retry($job)"), 'queued', 'with the membership it is retried');
goes_on('held', $job);

$node->stop('fast');
done_testing();
