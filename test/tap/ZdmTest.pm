# What the TAP tests share: a node with zdm_ext, bounded polls, and the server's log by line count.
package ZdmTest;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
	new_node configure sql try_sql sql_error poll poll_sql wait_for_state job_row job_state
	log_size log_lines ready_count wait_ready process_gone runner_pids
	create_work add_work audit_problems slow_down background_loop stop_loop
);

# psql's input breaks off when the server does.
$SIG{PIPE} = 'IGNORE';

our $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 90;
$patience = 90 if $patience > 90;

# --- nodes ------------------------------------------------------------------------------------------------------

# Settings that every node has; PostgreSQL::Test::Cluster's own are not made for crashes.
sub configure
{
	my ($node, %arg) = @_;
	$node->append_conf('postgresql.conf', <<"EOF");
restart_after_crash = on
log_statement = none
log_checkpoints = off
max_connections = 50
shared_buffers = 64MB
max_worker_processes = 12
checkpoint_timeout = 30min
timezone = 'UTC'
EOF
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'zdm_ext'\n") if $arg{preload};
	$node->append_conf('postgresql.conf', $arg{conf}) if defined $arg{conf};
	return;
}

# new_node(name, preload => 1, streaming => 1 or 'logical', conf => text, extension => 0)
sub new_node
{
	my ($name, %arg) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => $arg{streaming} || 0);
	configure($node, %arg);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION zdm_ext')
	  unless defined $arg{extension} && !$arg{extension};
	return $node;
}

# --- SQL --------------------------------------------------------------------------------------------------------

# One statement or several; dies on an error. sql($node, $query) or sql($node, $query, $database, $role)
sub sql
{
	my ($node, $query, $database, $role) = @_;
	my ($status, $out, $err) = try_sql($node, $query, $database, $role);
	if ($status != 0)
	{
		diag("failed: $query\n$err");    # the test's own output shows no message of die
		die "failed: $query\n$err\n";
	}
	return $out;
}

# (psql's exit status, output, errors); 2 is a connection that failed or broke off.
sub try_sql
{
	my ($node, $query, $database, $role) = @_;
	my ($out, $err, $status) = ('', '', 2);
	my $connection = $node->connstr($database || 'postgres');
	$connection .= " user='" . ($role =~ s/"//gr) . "'" if defined $role;
	my @command = ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $connection, '-f', '-');
	my $done = eval {
		IPC::Run::run(\@command, '<', \$query, '>', \$out, '2>', \$err, IPC::Run::timeout($patience * 2));
		$status = $? >> 8;
		1;
	};
	$err .= $@ unless $done;
	chomp($out, $err);
	return ($status, $out, $err);
}

# What the statement fails with, '' when it does not.
sub sql_error
{
	my ($node, $query, $database, $role) = @_;
	my ($status, $out, $err) = try_sql($node, $query, $database, $role);
	return $status == 0 ? '' : $err;
}

# --- waiting: always for something, never for ever -----------------------------------------------------------------

# poll(what, code, seconds): until the code gives a true value, which is returned; 0 when the time is over.
sub poll
{
	my ($what, $code, $seconds) = @_;
	my $deadline = time + ($seconds || $patience);
	for (;;)
	{
		my $value = $code->();
		return $value if $value;
		last if time > $deadline;
		sleep 0.05;
	}
	diag("gave up waiting: $what");
	return 0;
}

# Until the query gives exactly this (default t). A server that does not answer is asked again.
sub poll_sql
{
	my ($node, $query, $expected, $database, $seconds) = @_;
	$expected = 't' unless defined $expected;
	my ($status, $out, $err) = (0, '', '');
	return 1 if poll(
		$query,
		sub {
			($status, $out, $err) = try_sql($node, $query, $database);
			return $status == 0 && $out eq $expected;
		},
		$seconds);
	diag("expected '$expected', last seen '$out' $err");
	return 0;
}

sub job_row
{
	my ($node, $job, $database) = @_;
	my ($status, $out, $err) = try_sql($node,
		"SELECT row_to_json(j) FROM zdm.jobs j WHERE job_id = $job;"
		  . "SELECT * FROM (SELECT * FROM zdm.job_log WHERE job_id = $job ORDER BY at DESC LIMIT 12) l ORDER BY at",
		$database);
	return "$out$err";
}

sub job_state
{
	my ($node, $job, $database) = @_;
	return sql($node, "SELECT state FROM zdm.jobs WHERE job_id = $job", $database);
}

# Until the job is in this state, or one of several: 'failed|succeeded'.
sub wait_for_state
{
	my ($node, $job, $state, $database, $seconds) = @_;
	my $seen = '';
	my $reached = poll(
		"job $job to be $state",
		sub {
			(my $status, $seen) = try_sql($node, "SELECT state FROM zdm.jobs WHERE job_id = $job", $database);
			return $status == 0 && $seen =~ /^($state)$/;
		},
		$seconds);
	diag(job_row($node, $job, $database)) unless $reached;
	return $reached;
}

# --- the server's log and processes ---------------------------------------------------------------------------------

sub log_size { my ($node) = @_; return -s $node->logfile; }

# Lines of the log from this byte on that match.
sub log_lines
{
	my ($node, $pattern, $from) = @_;
	open my $in, '<', $node->logfile or die $node->logfile . ": $!";
	seek $in, $from || 0, 0;
	my @found = grep { /$pattern/ } <$in>;
	close $in;
	return @found;
}

# Times that the server has come up; a crash and its recovery are one more.
sub ready_count { my ($node) = @_; return scalar log_lines($node, qr/database system is ready to accept connections/); }

sub wait_ready
{
	my ($node, $before) = @_;
	return poll('the server to come back', sub { ready_count($node) > $before })
	  && poll_sql($node, 'SELECT true');
}

sub process_gone
{
	my ($pid) = @_;
	return poll("process $pid to go", sub { !kill(0, $pid) });
}

sub runner_pids
{
	my ($node) = @_;
	return split /\n/, sql($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'zdm_ext runner' ORDER BY pid");
}

# --- work to do, and a witness ----------------------------------------------------------------------------------------

# Table `item` without a key, whose rows a job gives a value in `target`; `change` holds one row for each time that
# happened. change_pause holds the milliseconds that every tenth of these changes takes.
sub create_work
{
	my ($node, $rows, $database) = @_;
	sql($node, <<"EOF", $database);
CREATE TABLE change_pause (ms float8 NOT NULL);
INSERT INTO change_pause VALUES (0);
CREATE TABLE change (relation text NOT NULL, id int NOT NULL, old int, new int, pid int NOT NULL);
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO public.change VALUES (TG_TABLE_NAME, NEW.id, OLD.target, NEW.target, pg_backend_pid());
	IF NEW.id % 10 = 0 THEN
		PERFORM pg_sleep(ms / 1000) FROM public.change_pause WHERE ms > 0;
	END IF;
	RETURN NULL;
END \$\$;
EOF
	add_work($node, 'item', $rows, $database);
	return;
}

sub add_work
{
	my ($node, $table, $rows, $database) = @_;
	sql($node, <<"EOF", $database);
CREATE TABLE $table (id int NOT NULL, target int, other text);
INSERT INTO $table SELECT i, NULL, repeat('x', 20) FROM generate_series(1, $rows) i;
CREATE INDEX ON $table (id);
CREATE TRIGGER note AFTER UPDATE ON $table FOR EACH ROW WHEN (OLD.target IS DISTINCT FROM NEW.target)
	EXECUTE FUNCTION note_change();
VACUUM ANALYZE $table;
EOF
	return;
}

# Milliseconds that ten rows of work take from now on.
sub slow_down
{
	my ($node, $ms, $database) = @_;
	sql($node, "UPDATE change_pause SET ms = $ms", $database);
	return;
}

# What is wrong with the work of `target = id * 2` after the job's end: '' when each row was changed exactly once.
sub audit_problems
{
	my ($node, $table, $job, $database) = @_;
	return sql($node, <<"EOF", $database);
SELECT concat_ws('; ',
	(SELECT count(*) || ' rows left' FROM $table WHERE target IS DISTINCT FROM id * 2 HAVING count(*) > 0),
	(SELECT count(*) || ' rows not changed by the job' FROM $table t
	 WHERE NOT EXISTS (SELECT FROM change c WHERE c.relation = '$table' AND c.id = t.id) HAVING count(*) > 0),
	(SELECT count(*) || ' rows changed more than once' FROM
	 (SELECT id FROM change WHERE relation = '$table' GROUP BY id HAVING count(*) > 1) d HAVING count(*) > 0),
	(SELECT format('rows_done is %s, rows changed are %s, rows are %s', j.rows_done, c.n, t.n)
	 FROM zdm.jobs j, (SELECT count(*) AS n FROM change WHERE relation = '$table') c, (SELECT count(*) AS n FROM $table) t
	 WHERE j.job_id = $job AND (j.rows_done <> c.n OR c.n <> t.n)))
EOF
}

# --- an application beside it -------------------------------------------------------------------------------------------

# Runs pgbench with this script again and again, whatever becomes of its connections, until stop_loop.
sub background_loop
{
	my ($node, $script, $clients, $rate) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
	my $stop = "$file.stop";
	PostgreSQL::Test::Utils::append_to_file($file, $script);
	my $connection = $node->connstr('postgres');
	my $loop = IPC::Run::start(
		[
			'sh', '-c',
			'while [ ! -e "$1" ]; do pgbench -n -c "$2" -R "$3" -T 3 -f "$4" "$5" >/dev/null 2>&1; sleep 0.1; done',
			'loop', $stop, $clients, $rate, $file, $connection
		],
		'<', \undef);
	return { loop => $loop, stop => $stop };
}

sub stop_loop
{
	my ($handle) = @_;
	PostgreSQL::Test::Utils::append_to_file($handle->{stop}, "\n");
	$handle->{loop}->finish;
	return;
}

1;
