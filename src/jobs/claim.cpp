#include "jobs/claim.hpp"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "core/backoff.hpp"
#include "core/sqlstate.hpp"
#include "jobs/settings.hpp"
#include "jobs/spawn.hpp"
#include "pg/identity.hpp"
#include "pg/latch.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

using core::JobState;
using pg::LockSpace;
using pg::query;
using pg::SessionLock;
using pg::text;

namespace {

struct Candidate {
    std::int64_t id;
    Oid session_role;
    Oid owner;
    Oid turn;
    JobState state;
    bool cancel;
    double delay_ms;  // until it may run; <= 0: now
    bool role_usable;
};

// A wall clock that jumped back must not hold a job: no back-off is longer than this.
constexpr double longest_delay_ms = 120'000;

// A job that a control function holds is looked at again: nobody says so when its transaction is rolled back.
constexpr double control_delay_ms = 500;

bool take_slot(Holds& holds) {
    if (holds.slot && holds.slot.id() <= static_cast<std::uint64_t>(max_workers())) {
        return true;
    }
    holds.slot.release();  // zdm.max_workers was lowered
    for (int slot = 1; slot <= max_workers(); ++slot) {
        holds.slot = SessionLock::try_take(LockSpace::slot, static_cast<std::uint64_t>(slot));
        if (holds.slot) {
            return true;
        }
    }
    return false;
}

bool slot_free(const Holds& holds) {
    for (int slot = 1; slot <= max_workers(); ++slot) {
        auto const id = static_cast<std::uint64_t>(slot);
        if (id != holds.slot.id() && !pg::held_by_other(LockSpace::slot, id)) {
            return true;
        }
    }
    return false;
}

bool unfinished_jobs() {
    return !query("SELECT FROM zdm.job j JOIN zdm.job_run r USING (job_id) JOIN zdm.job_control c USING (job_id)"
                  " WHERE r.state IN ('queued', 'running') AND c.request = 'run' AND j.home = $1 LIMIT 1",
                  {text(home())})
                .empty();
}

// Jobs whose dependency has ended badly without them being told (it ended while they were being enqueued). False: not
// all of them, for somebody holds one.
bool fail_orphans() {
    auto const orphans = query(
        "SELECT j.job_id, d.job_id, d.state FROM zdm.job j JOIN zdm.job_run r USING (job_id)"
        " JOIN zdm.job_run d ON d.job_id = ANY (j.depends_on)"
        " WHERE r.state = 'queued' AND d.state IN ('failed', 'cancelled') AND j.home = $1 ORDER BY 1, 2",
        {text(home())});
    std::int64_t last = 0;
    bool all = true;
    for (const auto& row : orphans.rows) {
        std::int64_t const id = pg::as_int(row[0]);
        std::int64_t const dependency = pg::as_int(row[1]);
        if (id == last) {
            continue;
        }
        last = id;
        if (!pg::try_lock(LockSpace::job, static_cast<std::uint64_t>(id), pg::mode_control) ||
            query("SELECT FROM zdm.job_run WHERE job_id = $1::bigint AND state = 'queued' FOR UPDATE SKIP LOCKED",
                  {text(id)})
                .empty()) {
            all = false;
            continue;
        }
        query("UPDATE zdm.job_run SET failed_dependency = $2::bigint WHERE job_id = $1::bigint",
              {text(id), text(dependency)});
        std::string const why = fmt::format("job {}, which it depends on, is {}", dependency, pg::as_string(row[2]));
        move_job(id, JobState::queued,
                 Move{.to = JobState::failed,
                      .event = "failed",
                      .message = why,
                      .error = core::Failure{std::string(core::sqlstate::job_failed_dependency), why, "",
                                             fmt::format("SELECT zdm.retry({}) revives both.", dependency), ""},
                      .retry_after_ms = {},
                      .waiting_for = {}});
    }
    return all;
}

std::vector<Candidate> candidates() {
    auto const rows = query(
        "SELECT j.job_id, j.session_role, j.owner, coalesce(pg_partition_root(j.relation)::oid, j.relation), r.state,"
        "  c.request = 'cancel', coalesce(extract(epoch FROM r.not_before - clock_timestamp()) * 1000, 0)::float8,"
        "  coalesce(a.rolcanlogin AND has_database_privilege(a.oid, $2::oid, 'CONNECT'), false)"
        "   AND EXISTS (SELECT FROM pg_authid o WHERE o.oid = j.owner)"
        " FROM zdm.job j JOIN zdm.job_run r USING (job_id) JOIN zdm.job_control c USING (job_id)"
        " LEFT JOIN pg_authid a ON a.oid = j.session_role"
        " WHERE r.state IN ('queued', 'running') AND c.request <> 'pause' AND j.home = $1"
        "  AND NOT EXISTS (SELECT FROM zdm.job_run d WHERE d.job_id = ANY (j.depends_on) AND d.state <> 'succeeded')"
        " ORDER BY j.job_id",
        {text(home()), text(MyDatabaseId)});
    std::vector<Candidate> list;
    for (const auto& row : rows.rows) {
        double const delay = pg::as_double(row[6]);
        list.push_back({pg::as_int(row[0]), pg::as_oid(row[1]), pg::as_oid(row[2]), pg::as_oid(row[3]),
                        core::parse_job_state(pg::as_string(row[4])).value_or(JobState::queued), pg::as_bool(row[5]),
                        delay > longest_delay_ms ? 0 : delay, pg::as_bool(row[7])});
    }
    return list;
}

// Records the start before the work: a crash can be told from a failure. False when the job ended here instead.
bool record_start(const Candidate& candidate) {
    bool const taken_up = candidate.state == JobState::running;
    if (candidate.cancel) {
        move_job(candidate.id, candidate.state,
                 Move{.to = JobState::cancelled,
                      .event = "cancelled",
                      .message = "",
                      .error = {},
                      .retry_after_ms = {},
                      .waiting_for = {}});
        return false;
    }
    auto const started = query(
        "UPDATE zdm.job_run r SET state = 'running', epoch = epoch + 1, pid = $2::integer, attempts = attempts + 1,"
        "  interruptions = CASE WHEN s.batches > progress_mark THEN 0 ELSE interruptions END + (r.state = 'running')::integer,"
        "  failures = CASE WHEN s.batches > progress_mark THEN 0 ELSE failures END,"
        "  progress_mark = s.batches, not_before = NULL, waiting_for = NULL,"
        "  started_at = coalesce(started_at, clock_timestamp())"
        " FROM (SELECT coalesce(sum(batches), 0)::bigint AS batches FROM zdm.job_slice WHERE job_id = $1::bigint) s"
        " WHERE r.job_id = $1::bigint AND r.state = $3 RETURNING interruptions",
        {text(candidate.id), text(MyProcPid), text(core::to_string(candidate.state))});
    if (started.empty()) {
        return false;
    }
    std::int64_t const interruptions = pg::as_int(started.front()[0]);
    if (taken_up && interruptions >= core::max_interruptions) {
        std::string const why =
            fmt::format("its process vanished {} times in a row without progress", interruptions);
        move_job(candidate.id, JobState::running,
                 Move{.to = JobState::failed,
                      .event = "failed",
                      .message = why,
                      .error = core::Failure{std::string(core::sqlstate::crashed_repeatedly),
                                             fmt::format("job {} was stopped: {}", candidate.id, why), "",
                                             fmt::format("The server's log says why; SELECT zdm.retry({}) tries again.",
                                                         candidate.id), ""},
                      .retry_after_ms = {},
                      .waiting_for = {}});
        return false;
    }
    log_event(candidate.id, taken_up ? "taken up" : "started",
              fmt::format("{}by pid {}", taken_up ? "after its process vanished, " : "", MyProcPid));
    return true;
}

// Under the gate lock, which the transaction gives back at its end.
Decision decide_at_gate(RunnerIdentity& self, Holds& holds, SessionLock& keeper, int& attempt) {
    Decision decision;
    pg::Spi spi;
    pg::Bookkeeping as_extension;
    pg::set_local("synchronous_commit", "on");
    pg::lock(LockSpace::gate, 0, ExclusiveLock);
    keep_out_of_decoding();

    auto finish = [&] {
        keeper = decision.what == Decision::What::sleep ? std::move(keeper) : SessionLock{};
        if (decision.what == Decision::What::exit) {
            holds.slot.release();
        }
    };
    auto sleep_as_keeper = [&](std::int64_t ms) {
        if (!keeper) {
            keeper = SessionLock::try_take(LockSpace::keeper, 0);
        }
        if (keeper) {
            decision.what = Decision::What::sleep;
            decision.sleep_ms = ms;
        } else {
            pg::wake_workers();  // the keeper there is may have to wake earlier than it knows
        }
    };

    if (!take_slot(holds)) {
        // All slots work or sleep; one that sleeps must look at what is new.
        pg::wake_workers();
        return decision;
    }
    double nearest = fail_orphans() ? -1 : control_delay_ms;
    auto not_before = [&](double ms) { nearest = nearest < 0 ? ms : std::min(nearest, ms); };

    bool const held = !query("SELECT FROM zdm.job_hold").empty();
    if (!enabled()) {
        if (unfinished_jobs()) {
            sleep_as_keeper(-1);
        }
    } else if (!held) {
        std::optional<Candidate> mine;
        std::vector<Candidate> others;
        for (const Candidate& candidate : candidates()) {
            auto const id = static_cast<std::uint64_t>(candidate.id);
            if (!candidate.role_usable && !candidate.cancel) {
                continue;  // parked, also for a runner that is still connected as that role: zdm.jobs says why
            }
            if (candidate.delay_ms > 0) {
                not_before(candidate.delay_ms);
                continue;
            }
            if (!pg::held_by_other(LockSpace::job, id) && pg::kept_by_other(LockSpace::job, id)) {
                not_before(control_delay_ms);
                continue;
            }
            bool const for_me = candidate.session_role == self.session_role &&
                                (self.owner == InvalidOid || self.owner == candidate.owner);
            if (for_me && !mine) {
                SessionLock job = SessionLock::try_take(LockSpace::job, id);
                if (!job) {
                    continue;
                }
                SessionLock turn;
                if (!candidate.cancel) {
                    turn = SessionLock::try_take(LockSpace::turn, candidate.turn);
                    if (!turn) {
                        continue;  // whoever has the turn decides anew when it is done
                    }
                }
                holds.job = std::move(job);
                holds.turn = std::move(turn);
                mine = candidate;
                continue;
            }
            if ((mine && mine->turn == candidate.turn) || !candidate.role_usable ||
                pg::held_by_other(LockSpace::job, id) || pg::held_by_other(LockSpace::turn, candidate.turn)) {
                continue;
            }
            others.push_back(candidate);
        }
        bool const make_room = mine && !others.empty() && others.front().id < mine->id && !slot_free(holds);
        if (make_room && start_runner(self.database, others.front().session_role)) {
            // An older job of another role has waited longer: this process cannot run it, so it makes room.
            holds.job.release();
            holds.turn.release();
        } else if (mine) {
            attempt = 0;
            if (record_start(*mine)) {
                decision.what = Decision::What::run;
                decision.job = load_job(mine->id);
                if (!others.empty()) {
                    (void)start_runner(self.database, others.front().session_role);
                } else if (nearest >= 0 && slot_free(holds) && !pg::held_by_other(LockSpace::keeper, 0)) {
                    // While we work somebody has to wake for the timed jobs.
                    (void)start_runner(self.database, self.session_role);
                }
            } else {
                holds.job.release();
                holds.turn.release();
                decision.what = Decision::What::sleep;  // look again at once: there may be more
                decision.sleep_ms = 0;
            }
        } else if (!others.empty()) {
            if (!start_runner(self.database, others.front().session_role)) {
                auto const pause = core::backoff_delay(core::Verdict::retry_slow, ++attempt, 1.0);
                sleep_as_keeper(std::min<std::int64_t>(pause.count(), 30'000));
            }
        } else if (nearest >= 0) {
            sleep_as_keeper(static_cast<std::int64_t>(nearest) + 1);
        } else {
            prune_history();
        }
    }
    finish();
    return decision;
}

}  // namespace

Decision decide(RunnerIdentity& self, Holds& holds, SessionLock& keeper, int& attempt) {
    Decision decision;
    pg::Transaction transaction;
    pg::Extension const extension = pg::find_extension();
    if (extension.job_table == self.job_table) {
        decision = decide_at_gate(self, holds, keeper, attempt);
    } else if (OidIsValid(extension.oid)) {
        // Created anew: the runners of its first jobs may have found our locks in their way.
        holds.slot.release();
        (void)start_runner(self.database, self.session_role);
    }
    transaction.commit();
    return decision;
}

}  // namespace zdm::jobs
