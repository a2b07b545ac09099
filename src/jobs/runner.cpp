// The runner: a background worker of one database and one session role that does one job after the other.
#include "jobs/runner.hpp"

#include <csignal>
#include <cstring>
#include <functional>
#include <unistd.h>

#include <fmt/format.h>

#include "core/backoff.hpp"
#include "core/sqlstate.hpp"
#include "jobs/claim.hpp"
#include "jobs/context.hpp"
#include "jobs/kinds.hpp"
#include "jobs/settings.hpp"
#include "jobs/spawn.hpp"
#include "pg/export.hpp"
#include "pg/give_way.hpp"
#include "pg/identity.hpp"
#include "pg/latch.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

using core::JobState;

namespace {

// --- connecting -----------------------------------------------------------------------------------------------

bool connected = false;
int last_fatal = 0;
emit_log_hook_type previous_log_hook = nullptr;

void remember_fatal(ErrorData* error) {
    if (error->elevel == FATAL) {
        last_fatal = error->sqlerrcode;
    }
    if (previous_log_hook != nullptr) {
        previous_log_hook(error);
    }
}

// A worker that cannot connect because its role or database is gone, or may not log in, would be restarted for ever,
// one FATAL a second. Exit code 0 tells the postmaster to forget it. Whatever else stops it is tried again.
void end_restarts(int, Datum) {
    bool const for_good = last_fatal == ERRCODE_UNDEFINED_DATABASE ||                   // dropped
                          last_fatal == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||  // dropped, or NOLOGIN
                          last_fatal == ERRCODE_INSUFFICIENT_PRIVILEGE ||               // no CONNECT
                          last_fatal == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;       // ALLOW_CONNECTIONS false
    if (!connected && for_good) {
        _exit(0);
    }
}

void connect(const RunnerArguments& arguments) {
    pg::guard([&] {
        pqsignal(SIGTERM, die);
        pqsignal(SIGINT, StatementCancelHandler);
        pqsignal(SIGHUP, SignalHandlerForConfigReload);
        previous_log_hook = emit_log_hook;
        emit_log_hook = remember_fatal;
        on_proc_exit(end_restarts, 0);
        BackgroundWorkerUnblockSignals();
        BackgroundWorkerInitializeConnectionByOid(arguments.database, arguments.session_role, 0);
        connected = true;
        emit_log_hook = previous_log_hook;
        compat::set_session_defaults();
        pgstat_report_appname("zdm_ext");
    });
    pg::give_way(true);
}

// --- one job ---------------------------------------------------------------------------------------------------

class Runner {
  public:
    explicit Runner(const RunnerArguments& arguments) {
        self_.database = arguments.database;
        self_.session_role = arguments.session_role;
    }
    void loop();

  private:
    void run(Job job);
    void become(Oid owner);
    void forget_settings();
    // Writes how the job ended or why it waits, as often as it takes.
    void record_end(std::int64_t job_id, const std::function<void()>& write);
    // What user code may have left in the session is gone before the next job, as DISCARD ALL would do it.
    void forget_session();
    void end_stopped(const Job& job, StopReason reason);
    void end_failed(const Job& job, core::Failure failure);

    RunnerIdentity self_;
    Holds holds_;
    pg::SessionLock keeper_;
};

void Runner::become(Oid owner) {
    pg::Transaction transaction;
    // Membership may have been revoked since the job was enqueued, or since the last job.
    if (owner != self_.session_role &&
        !pg::guard([&] { return compat::may_set_role(self_.session_role, owner); })) {
        throw pg::Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "the role that enqueued the job may no longer become its owner")
            .hint("GRANT the owner's role to it again, then SELECT zdm.retry(job_id).");
    }
    if (self_.owner != owner && owner != self_.session_role) {
        pg::guard([&] {
            const char* name = GetUserNameFromId(owner, false);
            SetConfigOption("role", name, PGC_USERSET, PGC_S_SESSION);
        });
    }
    transaction.commit();
    self_.owner = owner;
}

// What the code of the last job has set is not the next one's. The role stays.
void Runner::forget_settings() {
    pg::Transaction transaction;
    pg::guard([] {
        ResetAllOptions();
        compat::set_session_defaults();
        pgstat_report_appname("zdm_ext");
    });
    transaction.commit();
}

void Runner::record_end(std::int64_t job_id, const std::function<void()>& write) {
    for (int failures = 1;; ++failures) {
        try {
            pg::Transaction transaction;
            if (pg::find_extension().job_table != self_.job_table) {
                return;
            }
            {
                pg::Spi spi;
                pg::Bookkeeping as_extension;
                pg::set_local("synchronous_commit", "on");
                write();
            }
            transaction.commit();
            return;
        } catch (const pg::Error& error) {
            // The job's row is no longer ours to write.
            const char* what = error.what();
            pg::guard([&] { ereport(LOG, (errmsg("zdm job " INT64_FORMAT ": %s", job_id, what))); });
            return;
        } catch (const pg::PgError& error) {
            const char* what = error.what();
            pg::guard([&] {
                ereport(LOG, (errmsg("zdm job " INT64_FORMAT ": its state could not be recorded: %s", job_id, what)));
            });
            pg::wait_latch(core::backoff_delay(core::Verdict::retry_slow, failures, 1.0).count());
        }
    }
}

void Runner::end_stopped(const Job& job, StopReason reason) {
    switch (reason) {
        case StopReason::gone:
        case StopReason::lost:
            return;
        case StopReason::paused:
        case StopReason::held:
            record_end(job.id, [&] {
                move_job(job.id, JobState::running,
                         Move{.to = JobState::queued,
                              .event = reason == StopReason::paused ? "paused" : "held",
                              .message = reason == StopReason::paused ? "" : "zdm.pause_all or zdm.enabled",
                              .error = {},
                              .retry_after_ms = {},
                              .waiting_for = {}});
            });
            return;
        case StopReason::cancelled:
            record_end(job.id, [&] {
                auto const now = find_status(job.id);
                bool const taken_back = now && now->request == core::Request::run;  // zdm.retry was quick
                move_job(job.id, JobState::running,
                         Move{.to = taken_back ? JobState::queued : JobState::cancelled,
                              .event = taken_back ? "retry" : "cancelled",
                              .message = taken_back ? "zdm.retry took the cancel back" : "",
                              .error = {},
                              .retry_after_ms = {},
                              .waiting_for = {}});
            });
            return;
    }
}

void Runner::end_failed(const Job& job, core::Failure failure) {
    core::Verdict const verdict = core::classify(failure.sqlstate);
    record_end(job.id, [&] {
        // Errors in a row count only while nothing gets done between them.
        auto const row = pg::query(
            "UPDATE zdm.job_run r SET failures = CASE WHEN s.batches > progress_mark THEN 1 ELSE failures + 1 END,"
            "  interruptions = CASE WHEN s.batches > progress_mark THEN 0 ELSE interruptions END,"
            "  progress_mark = s.batches"
            " FROM (SELECT coalesce(sum(batches), 0)::bigint AS batches FROM zdm.job_slice WHERE job_id = $1::bigint) s"
            " WHERE r.job_id = $1::bigint RETURNING failures",
            {pg::text(job.id)});
        int const failures = row.empty() ? 1 : static_cast<int>(pg::as_int(row.front()[0]));
        // A role that is gone fails whatever the job does. That is no fault of the job: it is parked, and zdm.jobs says why.
        bool const role_gone = pg::guard([&] {
            return !SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(job.owner)) ||
                   !SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(job.session_role));
        });
        bool const ends = !role_gone && core::give_up(verdict, failures);
        Move move{.to = ends ? JobState::failed : JobState::queued,
                  .event = ends ? "failed" : "retry",
                  .message = fmt::format("{}: {}", failure.sqlstate, failure.message),
                  .error = failure,
                  .retry_after_ms = {},
                  .waiting_for = {}};
        if (role_gone) {
            move.event = "parked";
        } else if (!ends) {
            double const jitter = static_cast<double>(random() % 1000) / 1000.0;
            move.retry_after_ms = core::backoff_delay(verdict, failures, jitter).count();
            move.message += fmt::format("; next try in {} ms", *move.retry_after_ms);
        }
        move_job(job.id, JobState::running, move);
    });
    const char* what = failure.message.c_str();
    const char* state = failure.sqlstate.c_str();
    pg::guard([&] { ereport(LOG, (errmsg("zdm job " INT64_FORMAT " stopped: %s: %s", job.id, state, what))); });
}

void Runner::run(Job job) {
    std::string const activity = fmt::format("zdm job {}: {} on {}", job.id, job.kind, job.relation_name);
    pg::guard([&] { pgstat_report_activity(STATE_RUNNING, activity.c_str()); });
    JobContext context(job, holds_, self_.job_table);
    // What ends the job is kept while the exception dies: recording it is a transaction of its own.
    std::optional<StopReason> stopped;
    std::optional<core::Failure> failure;
    std::string summary;
    try {
        forget_settings();
        become(job.owner);
        const Kind* kind = find_kind(job.kind);
        if (kind == nullptr) {
            throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED, fmt::format("job {} is of unknown kind {}", job.id, job.kind))
                .hint("The library is older than the extension: restart the server after an upgrade.");
        }
        summary = kind->run(context);
    } catch (const Stopped& stop) {
        stopped = stop.reason;
    } catch (...) {
        failure = pg::current_failure();
    }
    if (!holds_.recover()) {
        stopped = StopReason::lost;
    }
    if (!stopped && failure && failure->sqlstate == "57014") {
        // Cancelled outside of a batch: if somebody asked for something, the next transaction obeys.
        try {
            WorkTransaction const obeying(context);
        } catch (const Stopped& stop) {
            stopped = stop.reason;
        } catch (const pg::PgError&) {
        }
    }
    if (stopped) {
        end_stopped(job, *stopped);
    } else if (failure) {
        end_failed(job, *failure);
    } else {
        record_end(job.id, [&] {
            move_job(job.id, JobState::running,
                     Move{.to = JobState::succeeded,
                          .event = "succeeded",
                          .message = summary,
                          .error = {},
                          .retry_after_ms = {},
                          .waiting_for = {},
                          .reset_counters = true});
        });
    }
    holds_.turn.release();
    holds_.job.release();
    forget_session();
    pg::guard([] {
        pgstat_report_stat(true);
        pgstat_report_activity(STATE_IDLE, nullptr);
    });
    pg::wake_workers();
}

void Runner::forget_session() {
    pg::Transaction transaction;
    pg::guard([] {
        PortalHashTableDeleteAll();
        ResetAllOptions();
        DropAllPreparedStatements();
        Async_UnlistenAll();
        LockReleaseAll(USER_LOCKMETHOD, true);
        ResetTempTableNamespace();
        compat::set_session_defaults();
        pgstat_report_appname("zdm_ext");
    });
    transaction.commit();
    // The slot's lock was among them: should another process have it now, the next decision finds another one.
    if (!holds_.slot.recover()) {
        holds_.slot = pg::SessionLock{};
    }
}

void Runner::loop() {
    {
        pg::Transaction transaction;
        pg::Extension const extension = pg::find_extension();
        if (OidIsValid(extension.oid)) {
            if (!pg::version_matches(extension.oid)) {
                pg::guard([] {
                    ereport(LOG, (errmsg("zdm_ext: the extension's version in this database is not the library's: no job runs"),
                                  errhint("Run ALTER EXTENSION zdm_ext UPDATE.")));
                });
                return;
            }
            self_.job_table = extension.job_table;
        }
        transaction.commit();
    }
    int attempt = 0;
    while (OidIsValid(self_.job_table)) {
        Decision decision;
        try {
            pg::guard([] { CHECK_FOR_INTERRUPTS(); });
            pg::process_config_reload();
            decision = decide(self_, holds_, keeper_, attempt);
            if (decision.what == Decision::What::sleep) {
                pg::wait_latch(decision.sleep_ms);
            }
        } catch (const pg::PgError& error) {
            if (error.sqlerrcode() != ERRCODE_QUERY_CANCELED) {
                throw;
            }
            // A cancel that came too late for its job.
            holds_.job.release();
            holds_.turn.release();
            continue;
        }
        if (decision.what == Decision::What::exit) {
            return;
        }
        if (decision.what == Decision::What::run) {
            run(std::move(*decision.job));
        }
    }
}

}  // namespace

void runner_main() {
    RunnerArguments arguments;
    std::memcpy(&arguments, MyBgworkerEntry->bgw_extra, sizeof arguments);
    connect(arguments);
    Runner(arguments).loop();
}

}  // namespace zdm::jobs

ZDM_EXPORT void zdm_runner_main(Datum) {
    zdm::pg::entry([] { zdm::jobs::runner_main(); });
    proc_exit(0);
}
