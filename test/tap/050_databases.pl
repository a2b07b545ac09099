# Databases that are dropped, renamed and copied, and the extension dropped, while jobs run.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use ZdmTest;

my $node = new_node('databases', extension => 0);

sub database_with_job
{
	my ($database, $ms) = @_;
	sql($node, "CREATE DATABASE $database");
	sql($node, 'CREATE EXTENSION zdm_ext', $database);
	create_work($node, 5000, $database);
	slow_down($node, defined $ms ? $ms : 5, $database);
	my $job = sql($node, q{SELECT zdm.start_backfill('item', 'target = id * 2', batch_time => '20 ms')}, $database);
	ok(poll_sql($node, "SELECT rows_done > 0 AND state = 'running' FROM zdm.jobs WHERE job_id = $job", 't', $database),
		"a job runs in $database");
	return $job;
}

# What workers wrote to the log since then. A runner that is gone for good writes nothing.
sub silence
{
	my ($from, $what) = @_;
	sleep 2;    # a worker's restart interval is a second: it comes back once, and learns that it is not wanted
	my $size = log_size($node);
	sleep 2.5;
	my @lines = log_lines($node, qr/(FATAL|ERROR|PANIC|zdm_ext runner)/, $size);
	is(scalar @lines, 0, "$what: the log is silent afterwards") or diag(@lines[0 .. ($#lines > 5 ? 5 : $#lines)]);
	@lines = log_lines($node, qr/(FATAL|ERROR|PANIC)/, $from);
	cmp_ok(scalar @lines, '<=', 3, "$what: few errors in all") or diag(@lines);
	is(scalar log_lines($node, qr/PANIC|terminated by signal/, $from), 0, "$what: no crash");
	return;
}

# --- DROP DATABASE ----------------------------------------------------------------------------------------------

database_with_job('dropped');
my $from = log_size($node);
my $begun = time;
is(sql_error($node, 'DROP DATABASE dropped'), '', 'DROP DATABASE succeeds at its first try while a job runs');
note(sprintf('it took %.1f s', time - $begun));
is(sql($node, "SELECT count(*) FROM pg_database WHERE datname = 'dropped'"), 0, 'the database is gone');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'and so are its workers');
silence($from, 'DROP DATABASE');

# A runner that sleeps (a job in back-off) is in nobody's way either, nor is one whose batch takes long.
database_with_job('asleep');
sql($node, q{
CREATE TABLE busy (id int, target int);
INSERT INTO busy VALUES (1);
CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'no disk' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER trouble BEFORE UPDATE ON busy FOR EACH ROW EXECUTE FUNCTION trouble()}, 'asleep');
slow_down($node, 0, 'asleep');
ok(wait_for_state($node, 1, 'succeeded', 'asleep'), 'its first job ends');
my $asleep = sql($node, q{SELECT zdm.start_backfill('busy', 'target = 1')}, 'asleep');
ok(poll_sql($node, "SELECT state = 'queued' AND waiting_for LIKE '%53100%' FROM zdm.jobs WHERE job_id = $asleep", 't', 'asleep'),
	'a job backs off')
  or diag(job_row($node, $asleep, 'asleep'));
$from = log_size($node);
is(sql_error($node, 'DROP DATABASE asleep'), '', 'DROP DATABASE succeeds at its first try while a runner sleeps');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'and its worker is gone');
silence($from, 'DROP DATABASE of a sleeping one');

database_with_job('slow', 3000);
$from = log_size($node);
is(sql_error($node, 'DROP DATABASE slow'), '', 'DROP DATABASE succeeds at its first try while a long batch runs');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'and its worker is gone');
silence($from, 'DROP DATABASE in a long batch');

# A worker that was made to leave comes back by itself, and may be done before we have asked for it.
sub take_up
{
	my ($node, $id, $db) = @_;
	return if job_state($node, $id, $db) ne 'interrupted';
	my $refused = sql_error($node, "SELECT zdm.resume($id)", $db);
	like($refused, qr/^(|.*is succeeded and cannot be resumed.*)$/s, 'zdm.resume takes the job up, or finds it done');
	return;
}

# --- RENAME -------------------------------------------------------------------------------------------------------

my $job = database_with_job('old_name');
$from = log_size($node);
is(sql_error($node, 'ALTER DATABASE old_name RENAME TO new_name'), '', 'RENAME succeeds at its first try while a job runs');
slow_down($node, 0, 'new_name');
take_up($node, $job, 'new_name');
ok(wait_for_state($node, $job, 'succeeded', 'new_name'), 'the job goes on under the new name');
is(audit_problems($node, 'item', $job, 'new_name'), '', 'each row was changed exactly once');

# --- a copy of the database -----------------------------------------------------------------------------------------

add_work($node, $_, 1000, 'new_name') for qw(waiting second);
slow_down($node, 5, 'new_name');
my $waiting = sql($node, q{SELECT zdm.start_backfill('waiting', 'target = id * 2', name => 'the waiting one')}, 'new_name');
ok(poll_sql($node, "SELECT rows_done > 0 FROM zdm.jobs WHERE job_id = $waiting", 't', 'new_name'), 'a job runs');
my $second = sql($node, qq{SELECT zdm.start_backfill('second', 'target = id * 2', depends_on => ARRAY[$waiting])}, 'new_name');
is(sql_error($node, 'CREATE DATABASE copy TEMPLATE new_name'), '', 'the database is copied at the first try while a job runs');
is( sql($node, 'SELECT job_id, state, split_part(waiting_for, chr(58), 1) FROM zdm.jobs ORDER BY job_id', 'copy'),
	"$job|succeeded|\n$waiting|paused|copy\n$second|paused|copy",
	'the jobs of the copy are parked');
like(sql($node, "SELECT waiting_for FROM zdm.jobs WHERE job_id = $waiting", 'copy'), qr/^copy: .*zdm\.resume\($waiting\)/, 'and say how to adopt them');

slow_down($node, 0, 'new_name');
slow_down($node, 0, 'copy');
take_up($node, $waiting, 'new_name');
ok(wait_for_state($node, $_, 'succeeded', 'new_name'), 'the original goes on') for $waiting, $second;
is(audit_problems($node, 'waiting', $waiting, 'new_name'), '', 'each row was changed exactly once');

# Work in the copy does not start them.
sql($node, 'CREATE TABLE fresh (id int, target int); INSERT INTO fresh VALUES (1)', 'copy');
my $fresh = sql($node, q{SELECT zdm.start_backfill('fresh', 'target = 1')}, 'copy');
cmp_ok($fresh, '>', $second, 'a new job in the copy has a new id');
ok(wait_for_state($node, $fresh, 'succeeded', 'copy'), 'and runs');
is(job_state($node, $waiting, 'copy'), 'paused', 'the copied jobs do not');
is(sql($node, q{SELECT zdm.start_backfill('waiting', 'target = id * 2', name => 'the waiting one')}, 'copy'), $waiting, 'their names are known');
is(job_state($node, $waiting, 'copy'), 'paused', 'and asking by name starts nothing');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'no worker stays');

is(sql($node, "SELECT zdm.resume($waiting)", 'copy'), 'queued', 'zdm.resume adopts one');
ok(wait_for_state($node, $waiting, 'succeeded', 'copy'), 'which succeeds');
is(audit_problems($node, 'waiting', $waiting, 'copy'), '', 'each row was changed exactly once, here too');
is(job_state($node, $second, 'copy'), 'paused', 'the other stays parked');
is(sql($node, "SELECT zdm.cancel($second)", 'copy'), 'cancelled', 'it can be cancelled');
is(job_state($node, $second, 'copy'), 'cancelled', 'and is');

# --- DROP EXTENSION -------------------------------------------------------------------------------------------------

$job = database_with_job('extension', 20);
my ($pid) = runner_pids($node);
$from = log_size($node);
is(sql_error($node, 'DROP EXTENSION zdm_ext', 'extension'), '', 'DROP EXTENSION succeeds while a job runs');
# Created again at once: the old runner may still be there, and must not touch what is new.
my $new = sql($node, q{
CREATE EXTENSION zdm_ext;
CREATE TABLE fresh (id int NOT NULL, target int);
INSERT INTO fresh SELECT i FROM generate_series(1, 1000) i;
SELECT zdm.start_backfill('fresh', 'target = id', paused => true)}, 'extension');
is($new, 1, 'created again, it begins with job 1');
ok(process_gone($pid), 'the old runner ends');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'and none follows');
is(job_state($node, $new, 'extension'), 'paused', 'the new job of the same number is as it was');
is(sql($node, 'SELECT count(*) FROM fresh WHERE target IS NOT NULL', 'extension'), 0, 'and its relation, too');
is(sql($node, "SELECT string_agg(event, ',') FROM zdm.job_log WHERE job_id = $new", 'extension'), 'enqueued', 'nobody has written about it');
my $touched = sql($node, 'SELECT count(*) FROM change', 'extension');
silence($from, 'DROP EXTENSION');
is(sql($node, 'SELECT count(*) FROM change', 'extension'), $touched, 'the old job does nothing any more');
slow_down($node, 0, 'extension');
is(sql($node, "SELECT zdm.resume($new)", 'extension'), 'queued', 'the new job is resumed');
ok(wait_for_state($node, $new, 'succeeded', 'extension'), 'and succeeds');
my $again = sql($node, q{SELECT zdm.start_backfill('item', 'target = id * 2')}, 'extension');
ok(wait_for_state($node, $again, 'succeeded', 'extension'), 'what the old job left is done by a new one');
is(sql($node, 'SELECT count(*) FROM item WHERE target IS DISTINCT FROM id * 2', 'extension'), 0, 'all rows are done');
is(sql($node, 'SELECT count(*) FROM (SELECT FROM change GROUP BY id HAVING count(*) > 1) d', 'extension'), 0, 'none was changed twice');

# Dropped with a runner asleep, and with a transaction of its own still open.
sql($node, q{DROP EXTENSION zdm_ext}, 'extension');
is(sql_error($node, 'BEGIN; CREATE EXTENSION zdm_ext; SELECT zdm.start_backfill(\'fresh\', \'target = -1\'); DROP EXTENSION zdm_ext; COMMIT', 'extension'),
	'', 'created, used and dropped in one transaction');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'no worker is left');
is(sql($node, 'SELECT count(*) FROM fresh WHERE target = -1', 'extension'), 0, 'and nothing was done');

$node->stop('fast');
done_testing();
