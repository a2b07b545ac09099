-- jobs: what people see. Each view shows a role the jobs of the roles whose rights it has; pg_monitor sees all.

CREATE VIEW zdm._visible_job WITH (security_barrier) AS
SELECT j.job_id, j.kind, j.name, j.statement, j.options || c.options AS options, j.depends_on, j.change_id,
       j.created_at, j.relation AS relation_oid, j.relation_name, j.owner_name, j.session_role, j.session_role_name,
       j.home = h.home AS at_home, o.owner,
       c.request, r.state AS recorded, r.phase, r.pid, r.attempts, r.not_before, r.waiting_for, r.error, r.rows_total,
       r.started_at, r.finished_at, r.failures,
       -- The lock is of now, the row of the query's snapshot: a runner that ended between was alive in the snapshot.
       CASE WHEN r.state IN ('queued', 'running')
            THEN zdm._job_alive(j.job_id) OR r.state = 'running' AND zdm._job_moved_on(j.job_id, r.epoch) END AS alive,
       CASE WHEN j.home = h.home THEN j.relation ELSE to_regclass(j.relation_name)::oid END AS relation
FROM zdm.job j
JOIN zdm.job_control c USING (job_id)
JOIN zdm.job_run r USING (job_id)
CROSS JOIN (SELECT zdm._home()) h(home)
CROSS JOIN LATERAL (SELECT CASE WHEN j.home = h.home THEN j.owner
                                ELSE coalesce(to_regrole(quote_ident(j.owner_name))::oid, 0) END) o(owner)
WHERE pg_has_role(o.owner, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE');

CREATE VIEW zdm.jobs WITH (security_barrier) AS
SELECT j.job_id, j.name, j.kind, j.relation::regclass AS relation, s.state, j.phase,
       CASE WHEN s.state = 'succeeded' THEN 100.0
            ELSE round(least(99.9, 100.0 * coalesce(p.fraction, 0))::numeric, 1) END AS progress,
       coalesce(p.rows_done, 0) AS rows_done,
       CASE WHEN s.state = 'succeeded' THEN coalesce(p.rows_done, 0)
            WHEN p.fraction > 0.05 AND p.rows_done > 0 THEN greatest(p.rows_done, (p.rows_done / p.fraction)::bigint)
            ELSE greatest(j.rows_total, p.rows_done) END AS rows_total,
       CASE WHEN p.busy_ms > 0 THEN round((p.rows_done * 1000 / p.busy_ms)::numeric, 0) END AS rows_per_second,
       CASE WHEN s.state = 'running' AND p.fraction > 0 AND p.busy_ms > 0
            THEN date_trunc('second', make_interval(secs => p.busy_ms / 1000 * (1 - p.fraction) / p.fraction)
                                      + interval '0.5 s') END AS eta,
       NULL::text AS throttled_by,
       CASE WHEN s.state IN ('succeeded', 'failed', 'cancelled') THEN NULL
            WHEN NOT j.at_home THEN format('copy: this job came with a copy of the database; zdm.resume(%s) adopts it', j.job_id)
            WHEN hold.held_by IS NOT NULL AND NOT coalesce(j.alive, false) THEN format('pause_all: by %s since %s', hold.held_by, hold.held_at::timestamptz(0))
            WHEN NOT zdm._enabled() THEN 'zdm.enabled: off'
            WHEN s.state = 'paused' THEN NULL
            WHEN d.job_id IS NOT NULL THEN format('job %s', d.job_id)
            WHEN role.rolname IS NULL THEN format('role: %s is gone', j.session_role_name)
            WHEN role_owner.rolname IS NULL THEN format('role: %s is gone', j.owner_name)
            WHEN NOT role.rolcanlogin THEN format('role: %s may not log in', role.rolname)
            WHEN NOT has_database_privilege(role.oid, current_database(), 'CONNECT') THEN format('role: %s may not connect to database %s', role.rolname, current_database())
            WHEN s.state = 'running' THEN j.waiting_for
            WHEN s.state = 'interrupted' THEN 'worker: its process is gone; it comes back within seconds, or zdm.resume takes the job up'
            WHEN j.not_before > clock_timestamp()
            THEN coalesce(j.waiting_for || '; ', format('retry: after %s %s; ', j.error->>'sqlstate', j.error->>'message'))
                 || format('next try in %s s', round(extract(epoch FROM j.not_before - clock_timestamp())::numeric, 1))
            WHEN turn.job_id IS NOT NULL THEN format('job %s', turn.job_id)
            WHEN pg_is_in_recovery() THEN 'standby: nothing runs on a standby'
            WHEN j.created_at < clock_timestamp() - interval '1 s'
            THEN format('worker_slot: no worker has started; max_worker_processes = %s, zdm.max_workers = %s',
                        current_setting('max_worker_processes'), current_setting('zdm.max_workers', true))
       END AS waiting_for,
       CASE WHEN j.alive AND j.recorded = 'running' THEN 1 ELSE 0 END AS workers,
       CASE WHEN j.alive AND j.recorded = 'running' THEN ARRAY[j.pid] ELSE '{}' END AS pids,
       j.attempts,
       CASE WHEN j.error IS NOT NULL THEN format('%s: %s', j.error->>'sqlstate', j.error->>'message') END AS last_error,
       coalesce(p.wal_bytes, 0) AS wal_bytes,
       0::double precision AS throttled_seconds,
       j.statement AS definition, j.options, coalesce(role_owner.rolname, j.owner_name) AS owner,
       j.created_at, j.started_at, p.last_progress_at, j.finished_at, j.change_id, j.depends_on
FROM zdm._visible_job j
CROSS JOIN LATERAL (
    SELECT CASE WHEN j.recorded IN ('queued', 'running') AND NOT j.at_home THEN 'paused'
                WHEN j.recorded IN ('queued', 'running') AND NOT coalesce(j.alive, false) AND j.request = 'run'
                     AND EXISTS (SELECT FROM zdm.job_hold) THEN 'paused'
                ELSE zdm._shown_state(j.recorded, j.request, j.alive) END) s(state)
LEFT JOIN LATERAL (
    SELECT sum(rows_done)::bigint AS rows_done, sum(wal_bytes)::bigint AS wal_bytes, sum(busy_ms) AS busy_ms,
           max(last_progress_at) AS last_progress_at,
           sum(least(next_position, end_position))::float8 / nullif(sum(end_position), 0)::float8 AS fraction
    FROM zdm.job_slice WHERE job_id = j.job_id) p ON true
LEFT JOIN zdm.job_hold hold ON true
LEFT JOIN pg_roles role ON role.oid = j.session_role
LEFT JOIN pg_roles role_owner ON role_owner.oid = j.owner
LEFT JOIN LATERAL (
    SELECT dep.job_id FROM zdm.job_run dep
    WHERE j.recorded = 'queued' AND dep.job_id = ANY (j.depends_on) AND dep.state <> 'succeeded'
    ORDER BY dep.job_id LIMIT 1) d ON true
LEFT JOIN LATERAL (
    SELECT o.job_id FROM zdm.job o JOIN zdm.job_run orun USING (job_id)
    WHERE s.state = 'queued' AND o.job_id <> j.job_id AND orun.state = 'running'
      AND coalesce(pg_partition_root(o.relation)::oid, o.relation) = coalesce(pg_partition_root(j.relation)::oid, j.relation)
      AND zdm._job_alive(o.job_id)
    ORDER BY o.job_id LIMIT 1) turn ON true;
COMMENT ON VIEW zdm.jobs IS
'One row a job. state is derived from the lock that a working process holds; waiting_for says in words what holds the job, NULL when nothing does.';

CREATE VIEW zdm.progress WITH (security_barrier) AS
SELECT job_id, coalesce(name, kind || ' ' || relation::text) AS job, state,
       '[' || rpad(repeat('#', (progress / 5)::int), 20, '.') || '] ' || lpad(progress::text, 5) || ' %' AS progress,
       format('%s of ~%s', rows_done, coalesce(rows_total, 0)) AS rows, rows_per_second AS "rows/s", eta,
       coalesce(throttled_by, waiting_for) AS held_by
FROM zdm.jobs
WHERE finished_at IS NULL OR finished_at > clock_timestamp() - interval '1 min'
ORDER BY job_id;
COMMENT ON VIEW zdm.progress IS
'A line a job for \watch: unfinished jobs, and those that ended within the last minute.';

CREATE VIEW zdm.job_log WITH (security_barrier) AS
SELECT e.job_id, e.at, e.event, e.message
FROM zdm.job_event e WHERE EXISTS (SELECT FROM zdm._visible_job j WHERE j.job_id = e.job_id)
ORDER BY e.job_id, e.event_no;
COMMENT ON VIEW zdm.job_log IS
'Every state change, retry, and wait of a job, oldest first.';

CREATE VIEW zdm.job_errors WITH (security_barrier) AS
SELECT e.job_id, CASE WHEN j.at_home THEN e.relation::regclass ELSE to_regclass(e.relation_name) END AS relation,
       e.key, e.sqlstate, e.message, e.at
FROM zdm.job_row_error e JOIN zdm._visible_job j USING (job_id);
COMMENT ON VIEW zdm.job_errors IS
'Rows that a job could not change: the primary key (or the ctid, where there is none) and the error.';

-- Usage on the schema is what a DBA grants; these do nothing without it.
GRANT SELECT ON zdm.jobs, zdm.progress, zdm.job_log, zdm.job_errors TO PUBLIC;
