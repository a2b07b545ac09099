#include "jobs/control.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "core/options.hpp"
#include "core/sqlstate.hpp"
#include "jobs/enqueue.hpp"
#include "jobs/spawn.hpp"
#include "pg/identity.hpp"
#include "pg/lock.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

using core::ControlCall;
using core::JobState;
using core::Request;
using pg::query;
using pg::text;

namespace {

bool has_rights_of(Oid user, Oid role) {
    return pg::guard([&] { return has_privs_of_role(user, role); });
}

// Ends an idle job. The caller's transaction holds the job's lock, so no runner takes it meanwhile.
void cancel_idle(const JobStatus& job) {
    move_job(job.id, job.recorded,
             Move{.to = JobState::cancelled,
                  .event = "cancelled",
                  .message = "while no worker was on it",
                  .error = {},
                  .retry_after_ms = {},
                  .waiting_for = {}});
}

// As find_status(), after whoever is moving the job has committed: nobody else moves it before our transaction ends.
std::optional<JobStatus> latest_status(std::int64_t job_id) {
    query("SELECT FROM zdm.job_run WHERE job_id = $1::bigint FOR UPDATE", {text(job_id)});
    return find_status(job_id);
}

[[noreturn]] void refuse_call(ControlCall call, const JobStatus& job, JobState shown) {
    throw pg::Error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    fmt::format("job {} is {} and cannot be {}", job.id, core::to_string(shown),
                                call == ControlCall::pause    ? "paused"
                                : call == ControlCall::resume ? "resumed"
                                : call == ControlCall::cancel ? "cancelled"
                                                              : "retried"))
        .hint(shown == JobState::succeeded ? "It is done; enqueue a new job for new work."
              : shown == JobState::paused  ? fmt::format("SELECT zdm.resume({}) lets it go on.", job.id)
                                           : fmt::format("SELECT zdm.retry({}) runs it again.", job.id));
}

void adopt_copy(const JobStatus& job) {
    if (job.owner == InvalidOid || job.session_role == InvalidOid) {
        throw pg::Error(ERRCODE_UNDEFINED_OBJECT, fmt::format("the role that owned job {} does not exist here", job.id))
            .hint("Enqueue the job again as a role of this server.");
    }
    auto const adopted = query(
        "UPDATE zdm.job SET home = $2, relation = to_regclass(relation_name)::oid, owner = $3::oid,"
        " session_role = $4::oid WHERE job_id = $1::bigint AND to_regclass(relation_name) IS NOT NULL",
        {text(job.id), home(), text(job.owner), text(job.session_role)});
    if (adopted.processed == 0) {
        throw pg::Error(ERRCODE_UNDEFINED_TABLE, fmt::format("the relation of job {} does not exist here", job.id))
            .hint("Enqueue the job again.");
    }
    query("UPDATE zdm.job_name n SET home = j.home, relation = j.relation, owner = j.owner FROM zdm.job j"
          " WHERE n.job_id = $1::bigint AND j.job_id = n.job_id",
          {text(job.id)});
    query("UPDATE zdm.job_row_error SET relation = coalesce(to_regclass(relation_name)::oid, 0) WHERE job_id = $1::bigint",
          {text(job.id)});
    // Block numbers of another server mean nothing here: the pass starts again, changed rows no longer match.
    query("UPDATE zdm.job_slice SET next_position = 0, relation_file = 0 WHERE job_id = $1::bigint", {text(job.id)});
    log_event(job.id, "adopted", "it came with a copy of the database");
}

std::string control_job_now(ControlCall call, std::int64_t job_id) {
    pg::guard([] { PreventCommandDuringRecovery("controlling a job"); });
    // Another session's control call on the same job, in a transaction that stays open, is not waited for without end.
    int const limit = LockTimeout > 0 ? std::min(LockTimeout, lock_timeout_ms()) : lock_timeout_ms();
    pg::ScopedSetting const wait("lock_timeout", fmt::format("{}", limit).c_str());
    pg::Spi spi;
    JobStatus job = controlled_job(job_id);
    pg::Bookkeeping as_extension;

    keep_out_of_decoding();
    auto const lock_id = static_cast<std::uint64_t>(job_id);
    bool alive = !core::terminal(job.recorded) && pg::held_by_other(pg::LockSpace::job, lock_id);
    JobState shown = core::shown_state(job.recorded, job.request, alive);
    bool const parked = !job.at_home && !core::terminal(job.recorded);
    if (parked) {
        shown = JobState::paused;
    }
    if (job.request == Request::cancel) {
        shown = core::terminal(job.recorded) ? job.recorded : JobState::cancelled;  // asked for is as good as done
    }
    auto const asked = core::asked_state(call, shown);
    if (!asked) {
        refuse_call(call, job, shown);
    }
    switch (call) {
        case ControlCall::pause:
            set_request(job_id, Request::pause);
            if (shown != JobState::paused) {
                log_event(job_id, "pause", "asked for");
            }
            break;
        case ControlCall::resume:
            if (!query("SELECT FROM zdm.job_hold").empty()) {
                throw pg::Error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                                fmt::format("job {} cannot be resumed: all jobs are held by zdm.pause_all()", job_id))
                    .hint("SELECT zdm.resume_all() first.");
            }
            if (parked) {
                adopt_copy(job);
            }
            if (job.request != Request::run) {
                log_event(job_id, "resume", "asked for");
            }
            set_request(job_id, Request::run);
            request_runner(job.session_role);
            break;
        case ControlCall::cancel:
            if (shown == JobState::cancelled) {
                break;
            }
            set_request(job_id, Request::cancel);
            if (!alive && pg::try_lock(pg::LockSpace::job, lock_id, pg::mode_control)) {
                // Read again under the lock: a runner may have come and gone.
                if (auto now = latest_status(job_id); now && !core::terminal(now->recorded)) {
                    cancel_idle(*now);
                }
            } else {
                alive = true;
            }
            break;
        case ControlCall::retry:
            set_request(job_id, Request::run);
            if (core::terminal(job.recorded)) {
                auto const now = latest_status(job_id);
                if (now && now->recorded == JobState::succeeded) {
                    refuse_call(call, *now, now->recorded);  // somebody else's retry was faster
                }
                if (now && core::terminal(now->recorded)) {
                    pg::lock(pg::LockSpace::job, lock_id, pg::mode_control);
                    if (!now->at_home) {
                        adopt_copy(*now);
                    }
                    move_job(job_id, now->recorded,
                             Move{.to = JobState::queued,
                                  .event = "queued",
                                  .message = "retry asked for",
                                  .error = {},
                                  .retry_after_ms = {},
                                  .waiting_for = {},
                                  .reset_counters = true});
                    query("UPDATE zdm.job_slice SET rows_skipped = 0 WHERE job_id = $1::bigint", {text(job_id)});
                    query("DELETE FROM zdm.job_row_error WHERE job_id = $1::bigint", {text(job_id)});
                    revive_dependents(job_id);
                }
            }
            request_runner(job.session_role);
            break;
    }
    if (alive && (call == ControlCall::pause || call == ControlCall::cancel)) {
        request_interrupt(job.pid);
    }
    request_wake();
    return std::string(core::to_string(*asked));
}

}  // namespace

JobStatus visible_job(std::int64_t job_id) {
    Oid const caller = GetUserId();
    pg::Bookkeeping as_extension;
    auto status = find_status(job_id);
    if (!status || !(has_rights_of(caller, status->owner) || has_rights_of(caller, ROLE_PG_MONITOR) ||
                     has_rights_of(caller, ROLE_PG_SIGNAL_BACKEND))) {
        throw pg::Error(ERRCODE_UNDEFINED_OBJECT, fmt::format("job {} does not exist", job_id))
            .hint("SELECT job_id, name, state FROM zdm.jobs shows the jobs there are.");
    }
    return *status;
}

JobStatus controlled_job(std::int64_t job_id) {
    JobStatus status = visible_job(job_id);
    Oid const caller = GetUserId();
    if (!has_rights_of(caller, status.owner) && !has_rights_of(caller, ROLE_PG_SIGNAL_BACKEND)) {
        throw pg::Error(ERRCODE_INSUFFICIENT_PRIVILEGE, fmt::format("permission denied for job {}", job_id))
            .hint("Only the job's owner, its members, and members of pg_signal_backend control it.");
    }
    return status;
}

std::string control_job(ControlCall call, std::int64_t job_id) {
    try {
        return control_job_now(call, job_id);
    } catch (const pg::PgError& error) {
        if (error.sqlerrcode() != ERRCODE_LOCK_NOT_AVAILABLE) {
            throw;
        }
    }
    throw pg::Error(ERRCODE_LOCK_NOT_AVAILABLE,
                    fmt::format("job {} is being controlled by another transaction that is still open", job_id))
        .hint("Have that session commit, then call again.");
}

void hold_all(bool hold) {
    pg::guard([] { PreventCommandDuringRecovery("controlling jobs"); });
    Oid const caller = GetUserId();
    if (!has_rights_of(caller, ROLE_PG_SIGNAL_BACKEND)) {
        throw pg::Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                        hold ? "permission denied to pause all jobs" : "permission denied to resume all jobs")
            .hint("It needs membership in pg_signal_backend; zdm.pause(job_id) holds a job of your own.");
    }
    pg::Spi spi;
    pg::Bookkeeping as_extension;
    if (hold) {
        query("INSERT INTO zdm.job_hold (held_by) VALUES (session_user) ON CONFLICT DO NOTHING");
        auto const running = query("SELECT pid FROM zdm.job_run WHERE state = 'running' AND pid IS NOT NULL");
        for (const auto& row : running.rows) {
            request_interrupt(static_cast<int>(pg::as_int(row[0])));
        }
    } else {
        query("DELETE FROM zdm.job_hold");
        auto const roles = query(
            "SELECT DISTINCT j.session_role FROM zdm.job j JOIN zdm.job_run r USING (job_id)"
            " WHERE r.state IN ('queued', 'running') AND j.home = $1",
            {text(home())});
        for (const auto& row : roles.rows) {
            request_runner(pg::as_oid(row[0]));
        }
    }
    request_wake();
}

void alter_options(std::int64_t job_id, const OptionValues& options) {
    pg::guard([] { PreventCommandDuringRecovery("altering a job"); });
    pg::Spi spi;
    JobStatus const job = controlled_job(job_id);
    if (core::terminal(job.recorded)) {
        throw pg::Error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        fmt::format("job {} has ended: {}", job_id, core::to_string(job.recorded)))
            .hint("Options change the pace of unfinished jobs.");
    }
    if (options.empty()) {
        return;
    }
    pg::Bookkeeping as_extension;
    std::vector<pg::Text> keys;
    std::vector<pg::Text> values;
    std::string said;
    for (const auto& [name, value] : options) {
        keys.emplace_back(name);
        values.emplace_back(value);
        said += fmt::format("{}{} = {}", said.empty() ? "" : ", ", name, value);
    }
    query(
        "UPDATE zdm.job_control SET options = options || jsonb_object($2::text[], $3::text[])"
        " WHERE job_id = $1::bigint",
        {text(job_id), array_literal(keys), array_literal(values)});
    log_event(job_id, "altered", said);
    request_wake();
}

void require_succeeded(const std::string& name) {
    Oid const caller = GetUserId();
    pg::Spi spi;
    pg::Bookkeeping as_extension;
    auto const found = query(
        "SELECT n.job_id, n.succeeded_at IS NOT NULL AND coalesce(r.state = 'succeeded', true),"
        " zdm._shown_state(r.state, c.request, zdm._job_alive(n.job_id)), r.error->>'message', n.owner"
        " FROM zdm.job_name n LEFT JOIN zdm.job_run r USING (job_id) LEFT JOIN zdm.job_control c USING (job_id)"
        " WHERE n.name = $1",
        {text(name)});
    if (found.empty()) {
        throw pg::Error(pg::sqlstate_code(core::sqlstate::job_not_succeeded),
                        fmt::format("no job named \"{}\" has run in this database", name))
            .hint("Run the migration that enqueues it first.");
    }
    const auto& row = found.front();
    if (!pg::as_bool(row[1])) {
        std::int64_t const job_id = pg::as_int(row[0]);
        std::string state = pg::as_string(row[2]);
        if ((state == "queued" || state == "interrupted") && !query("SELECT FROM zdm.job_hold").empty()) {
            state = "paused";
        }
        bool const ended = state == "failed" || state == "cancelled";
        // An error may quote the data of a row: for those alone who see the job.
        bool const shown = has_rights_of(caller, pg::as_oid(row[4])) || has_rights_of(caller, ROLE_PG_MONITOR);
        throw pg::Error(pg::sqlstate_code(core::sqlstate::job_not_succeeded),
                        fmt::format("job \"{}\" (job {}) has not succeeded: it is {}", name, job_id, state))
            .detail(shown ? pg::as_string(row[3]) : "")
            .hint(fmt::format(ended             ? fmt::runtime("When the cause is gone, SELECT zdm.retry({}).")
                              : state == "paused" ? fmt::runtime("SELECT zdm.resume({}), or zdm.resume_all(), lets it go on.")
                                    : fmt::runtime("Wait for it with CALL zdm.wait({}), or look at zdm.jobs."), job_id));
    }
}

}  // namespace zdm::jobs
