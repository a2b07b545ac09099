# A server that stops and starts: with preload jobs go on by themselves, without it they wait to be taken up. And a job
# that kills its own process does not do so for ever.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use ZdmTest;

my $rows = 10_000;
my $enqueue = q{SELECT zdm.start_backfill('%s', 'target = id * 2', batch_time => '5 ms')};

sub start_work
{
	my ($node, $table) = @_;
	my $job = sql($node, sprintf($enqueue, $table));
	ok(poll_sql($node, "SELECT state = 'running' AND rows_done > 0 FROM zdm.jobs WHERE job_id = $job"),
		"the job on $table works");
	return $job;
}

# --- with preload -------------------------------------------------------------------------------------------------

my $node = new_node('preload', preload => 1);
create_work($node, $rows);
slow_down($node, 5);
my $job = start_work($node, 'item');

$node->stop('immediate');
$node->start;
ok( poll_sql($node, "SELECT state = 'running' AND attempts = 2 FROM zdm.jobs WHERE job_id = $job"),
	'after an immediate shutdown the job goes on by itself');
my $done = sql($node, "SELECT rows_done FROM zdm.jobs WHERE job_id = $job");
cmp_ok($done, '>', 0, 'from where it was');

# A fast shutdown does not wait for the job.
my $from = log_size($node);
my $begun = time;
$node->stop('fast');
my $took = time - $begun;
cmp_ok($took, '<', 10, sprintf('a fast shutdown with a running job took %.1f s', $took));
is(scalar log_lines($node, qr/(PANIC|was terminated by signal|exited with exit code [^1]|WARNING|received immediate shutdown)/, $from),
	0, 'and is clean');
is(scalar log_lines($node, qr/database system is shut down/, $from), 1, 'and complete');
$node->start;
ok( poll_sql($node, "SELECT state = 'running' AND attempts = 3 FROM zdm.jobs WHERE job_id = $job"),
	'after it the job goes on by itself');

# One that was paused or cancelled before does not.
is(sql($node, "SELECT zdm.pause($job)"), 'paused', 'pause is taken');
ok(wait_for_state($node, $job, 'paused'), 'the job is paused');
$node->stop('immediate');
$node->start;
slow_down($node, 0);
add_work($node, 'other', 200);
my $other = sql($node, sprintf($enqueue, 'other'));
ok(wait_for_state($node, $other, 'succeeded'), 'another job runs after the restart');
is(job_state($node, $job), 'paused', 'a paused job stays paused');
is(sql($node, "SELECT zdm.resume($job)"), 'queued', 'resume is taken');
ok(wait_for_state($node, $job, 'succeeded'), 'and the job succeeds');
is(audit_problems($node, 'item', $job), '', 'each row was changed exactly once');

# zdm.enabled = off before the start: nothing begins; a reload lets it.
slow_down($node, 20);
add_work($node, 'third', $rows);
my $third = start_work($node, 'third');
$node->stop('immediate');
$node->append_conf('postgresql.conf', 'zdm.enabled = off');
$node->start;
ok( poll_sql($node, "SELECT state IN ('interrupted', 'queued', 'paused') AND waiting_for = 'zdm.enabled: off' FROM zdm.jobs WHERE job_id = $third"),
	'with zdm.enabled = off it does not begin, and says why')
  or diag(job_row($node, $third));
slow_down($node, 0);
$node->append_conf('postgresql.conf', 'zdm.enabled = on');
$node->reload;
ok(wait_for_state($node, $third, 'succeeded'), 'switched on it goes on by itself');
is(audit_problems($node, 'third', $third), '', 'each row was changed exactly once');
$node->stop('fast');

# --- without --------------------------------------------------------------------------------------------------------

$node = new_node('plain');
create_work($node, $rows);
slow_down($node, 5);
add_work($node, $_, $rows) for qw(b c d e);
add_work($node, 'small', 10);
my %job = map { $_ => start_work($node, $_) } qw(item b c d);
# Four run, as many as zdm.max_workers says; the fifth is queued.
$job{e} = sql($node, sprintf($enqueue, 'e'));
my $changed = sql($node, 'SELECT count(*) FROM change');
cmp_ok($changed, '>', 0, 'rows were changed');

$node->stop('immediate');
$node->start;
is( sql($node, "SELECT string_agg(DISTINCT state, ',') FROM zdm.jobs WHERE job_id <> $job{e}"),
	'interrupted', 'after an immediate shutdown the jobs are interrupted');
is(job_state($node, $job{e}), 'queued', 'and the one that waited still waits');
like(sql($node, "SELECT waiting_for FROM zdm.jobs WHERE job_id = $job{item}"),
	qr/^worker: .*zdm\.resume/, 'waiting_for says what to do');
is(sql($node, "SELECT workers || ' ' || pids::text FROM zdm.jobs WHERE job_id = $job{item}"), '0 {}', 'no process is shown');
is(runner_pids($node), 0, 'there is none');

# Control of interrupted jobs.
is(sql($node, "SELECT zdm.pause($job{b})"), 'paused', 'an interrupted job can be paused');
is(job_state($node, $job{b}), 'paused', 'and is paused');
is(sql($node, "SELECT zdm.cancel($job{c})"), 'cancelled', 'another cancelled');
is(job_state($node, $job{c}), 'cancelled', 'and is cancelled at once');
slow_down($node, 0);
is(sql($node, "SELECT zdm.resume($job{item})"), 'queued', 'zdm.resume takes the third up');
ok(wait_for_state($node, $job{item}, 'succeeded'), 'which succeeds');
is(audit_problems($node, 'item', $job{item}), '', 'each row was changed exactly once');
ok(wait_for_state($node, $job{$_}, 'succeeded'), "the call took up the job on $_ as well") for qw(d e);
is(audit_problems($node, $_, $job{$_}), '', "each row of $_ was changed exactly once") for qw(d e);
is(job_state($node, $job{b}), 'paused', 'the paused job stays paused');
is(sql($node, "SELECT zdm.retry($job{c})"), 'queued', 'the cancelled one is retried');
is(sql($node, "SELECT zdm.resume($job{b})"), 'queued', 'the paused one resumed');
ok(wait_for_state($node, $job{$_}, 'succeeded'), "the job on $_ succeeds") for qw(b c);
is(audit_problems($node, $_, $job{$_}), '', "each row of $_ was changed exactly once") for qw(b c);

# Any call that enqueues takes up what was interrupted; so do zdm.retry and CALL zdm.wait.
my %take_up = (
	'a call that enqueues' => sub { sql($node, sprintf($enqueue, 'small')) },
	'zdm.retry' => sub { sql($node, "SELECT zdm.retry($_[0])") },
	'CALL zdm.wait' => sub { sql($node, "CALL zdm.wait($_[0], timeout => '90 s')") },
);
my $number = 0;
for my $what (sort keys %take_up)
{
	my $table = 'again' . ++$number;
	slow_down($node, 5);
	add_work($node, $table, 5000);
	my $again = start_work($node, $table);
	$node->restart;
	is(job_state($node, $again), 'interrupted', 'after a restart the job is interrupted');
	slow_down($node, 0);
	is(job_state($node, $again), 'interrupted', 'and stays that');
	$take_up{$what}->($again);
	ok(wait_for_state($node, $again, 'succeeded'), "$what takes it up");
	is(audit_problems($node, $table, $again), '', "each row of $table was changed exactly once");
}

# --- a job whose own trigger kills its process, each time -------------------------------------------------------------

sql($node, q{
CREATE TABLE deadly (id int NOT NULL, target int);
INSERT INTO deadly SELECT i FROM generate_series(1, 100) i;
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_terminate_backend(pg_backend_pid());
	PERFORM pg_sleep(10);
	RETURN NEW;
END $$;
CREATE TRIGGER die BEFORE UPDATE ON deadly FOR EACH ROW EXECUTE FUNCTION die()});
$from = log_size($node);
my $deadly = sql($node, q{SELECT zdm.start_backfill('deadly', 'target = id * 2', name => 'deadly')});
ok(wait_for_state($node, $deadly, 'failed'), 'a job that kills its process fails in the end');
like(sql($node, "SELECT last_error FROM zdm.jobs WHERE job_id = $deadly"), qr{^ZD004: }, 'with ZD004')
  or diag(job_row($node, $deadly));
is(sql($node, 'SELECT count(*) FROM deadly WHERE target IS NOT NULL'), 0, 'nothing was changed');
is(scalar log_lines($node, qr/terminating background worker "zdm_ext runner/, $from), 5, 'after five processes');
like(sql_error($node, "CALL zdm.wait($deadly)"), qr/ZD004.*vanished 5 times/s, 'zdm.wait raises it');
ok(poll('the runners to end', sub { !runner_pids($node) }), 'no worker is left');
is(job_state($node, $deadly), 'failed', 'and it stays failed');
sql($node, 'DROP TRIGGER die ON deadly');
is(sql($node, "SELECT zdm.retry($deadly)"), 'queued', 'without the cause it is retried');
ok(wait_for_state($node, $deadly, 'succeeded'), 'and succeeds');
is(sql($node, 'SELECT count(*) FROM deadly WHERE target IS DISTINCT FROM id * 2'), 0, 'all rows are done');

# One that makes progress between its deaths is not counted out.
slow_down($node, 0);
sql($node, q{
CREATE TABLE unlucky (id int NOT NULL, target int, filler text);
INSERT INTO unlucky SELECT i, NULL, repeat('x', 500) FROM generate_series(1, 120) i;
CREATE SEQUENCE luck;
CREATE FUNCTION die_sometimes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id % 15 = 0 AND (SELECT last_value FROM public.luck) < NEW.id THEN
		PERFORM setval('public.luck', NEW.id);  -- not undone: the next process gets past this row
		PERFORM pg_terminate_backend(pg_backend_pid());
		PERFORM pg_sleep(10);
	END IF;
	PERFORM pg_sleep(0.005);
	RETURN NEW;
END $$;
CREATE TRIGGER die BEFORE UPDATE ON unlucky FOR EACH ROW EXECUTE FUNCTION die_sometimes()});
my $unlucky = sql($node, q{SELECT zdm.start_backfill('unlucky', 'target = id * 2', batch_time => '10 ms')});
ok(wait_for_state($node, $unlucky, 'succeeded|failed'), 'a job that dies now and then ends');
is(job_state($node, $unlucky), 'succeeded', 'and has succeeded') or diag(job_row($node, $unlucky));
cmp_ok(sql($node, "SELECT attempts FROM zdm.jobs WHERE job_id = $unlucky"), '>', 5, 'with more than five attempts');
is(sql($node, 'SELECT count(*) FROM unlucky WHERE target IS DISTINCT FROM id * 2'), 0, 'all rows are done');

$node->stop('fast');
done_testing();
