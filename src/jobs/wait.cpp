// CALL zdm.wait: between two looks it holds no snapshot and no lock, so it neither holds VACUUM back nor blocks a
// CREATE INDEX CONCURRENTLY that waits for older snapshots.
#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "core/sqlstate.hpp"
#include "jobs/control.hpp"
#include "jobs/spawn.hpp"
#include "pg/identity.hpp"
#include "pg/latch.hpp"
#include "pg/lock.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

namespace {

using Clock = std::chrono::steady_clock;

struct Look {
    JobStatus status;
    bool alive = false;
    bool held = false;
    std::string progress;
};

Look look_at(std::int64_t job_id) {
    Look look{.status = visible_job(job_id), .alive = false, .held = false, .progress = {}};
    pg::Bookkeeping as_extension;
    if (!core::terminal(look.status.recorded)) {
        look.alive = pg::held_by_other(pg::LockSpace::job, static_cast<std::uint64_t>(job_id));
        look.held = look.status.request != core::Request::run || !look.status.at_home ||
                    !pg::query("SELECT FROM zdm.job_hold").empty();
        auto const rows = pg::query(
            "SELECT coalesce(sum(rows_done), 0), coalesce(round(100 * sum(least(next_position, end_position))"
            " / nullif(sum(end_position), 0), 0), 0) FROM zdm.job_slice WHERE job_id = $1::bigint",
            {pg::text(job_id)});
        look.progress = fmt::format("{} rows done, {} % passed", pg::as_string(rows.front()[0]),
                                    pg::as_string(rows.front()[1]));
    }
    return look;
}

[[noreturn]] void refuse(std::int64_t job_id, const char* why) {
    throw pg::Error(ERRCODE_ACTIVE_SQL_TRANSACTION,
                    fmt::format("zdm.wait({}) refused: this transaction {}", job_id, why))
        .detail("The job would wait for this transaction, and this transaction for the job.")
        .hint("COMMIT first, then CALL zdm.wait in a transaction of its own.");
}

bool holds_lock_on(Oid relation) {
    return OidIsValid(relation) && pg::guard([&] {
        List* members = list_make1_oid(relation);
        if (has_subclass(relation)) {
            members = find_all_inheritors(relation, NoLock, nullptr);
        }
        ListCell* cell;
        foreach (cell, members) {
            LOCKTAG tag;
            SET_LOCKTAG_RELATION(tag, MyDatabaseId, lfirst_oid(cell));
            for (LOCKMODE mode = AccessShareLock; mode <= AccessExclusiveLock; ++mode) {
                if (compat::lock_held_by_me(&tag, mode)) {
                    return true;
                }
            }
        }
        return false;
    });
}

// In a transaction block: looks inside a subtransaction that is rolled back, which gives its locks back.
Look look_and_forget(std::int64_t job_id) {
    MemoryContext const context = CurrentMemoryContext;
    ResourceOwner const owner = CurrentResourceOwner;
    pg::guard([] {
        BeginInternalSubTransaction(nullptr);
        PushActiveSnapshot(GetTransactionSnapshot());
    });
    Look look = [&] {
        pg::Spi spi;
        return look_at(job_id);
    }();
    pg::guard([&] {
        PopActiveSnapshot();
        RollbackAndReleaseCurrentSubTransaction();
        MemoryContextSwitchTo(context);
        CurrentResourceOwner = owner;
        InvalidateCatalogSnapshot();
    });
    return look;
}

Look look_and_commit(std::int64_t job_id) {
    Look look = look_at(job_id);
    pg::guard([] { SPI_commit(); });
    return look;
}

[[noreturn]] void raise_end(const Look& look) {
    std::int64_t const job_id = look.status.id;
    if (look.status.recorded == core::JobState::failed && look.status.error) {
        core::Failure failure = *look.status.error;
        failure.context = fmt::format("job {}{}{}", job_id, failure.context.empty() ? "" : "\n", failure.context);
        if (failure.hint.empty()) {
            failure.hint = fmt::format("SELECT * FROM zdm.job_log WHERE job_id = {0}; when the cause is gone,"
                                       " SELECT zdm.retry({0}).", job_id);
        }
        throw pg::Error(std::move(failure));
    }
    throw pg::Error(pg::sqlstate_code(core::sqlstate::job_cancelled), fmt::format("job {} was cancelled", job_id))
        .hint(fmt::format("SELECT zdm.retry({}) continues it.", job_id));
}

void notice(const std::string& text) {
    const char* raw = text.c_str();
    pg::guard([&] { ereport(NOTICE, (errmsg("%s", raw))); });
}

}  // namespace

void wait_for_job(std::int64_t job_id, std::int64_t timeout_ms, bool atomic) {
    pg::Spi spi(atomic ? 0 : SPI_OPT_NONATOMIC);
    {
        // What is read here must not leave locks on our tables to the rest of a transaction block.
        JobStatus const status = atomic ? look_and_forget(job_id).status : visible_job(job_id);
        if (status.in_this_transaction) {
            refuse(job_id, "enqueued the job and has not committed");
        }
        if (TransactionIdIsValid(GetTopTransactionIdIfAny())) {
            refuse(job_id, "has written");
        }
        if (atomic) {
            if (IsolationUsesXactSnapshot()) {
                refuse(job_id, "holds a snapshot (its isolation level is not READ COMMITTED)");
            }
            if (holds_lock_on(status.relation)) {
                refuse(job_id, "holds a lock on the job's relation");
            }
            bool snapshot = false;
            try {
                snapshot = pg::guard([] {
                    ForgetPortalSnapshots();
                    InvalidateCatalogSnapshot();
                    return HaveRegisteredOrActiveSnapshot();
                });
            } catch (const pg::PgError&) {
                snapshot = true;  // a snapshot that belongs to a query around this call
            }
            if (snapshot) {
                refuse(job_id, "holds a snapshot");
            }
        }
    }
    auto const began = Clock::now();
    auto elapsed_ms = [&] {
        return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began).count();
    };
    std::int64_t pause_ms = 10;
    std::int64_t next_notice_ms = 2000;
    std::int64_t next_start_ms = 1000;
    for (;;) {
        Look const look = atomic ? look_and_forget(job_id) : look_and_commit(job_id);
        if (look.status.recorded == core::JobState::succeeded) {
            return;
        }
        if (core::terminal(look.status.recorded)) {
            raise_end(look);
        }
        std::int64_t const now_ms = elapsed_ms();
        if (timeout_ms >= 0 && now_ms >= timeout_ms) {
            throw pg::Error(pg::sqlstate_code(core::sqlstate::wait_timeout),
                            fmt::format("job {} did not end within {} ms", job_id, timeout_ms))
                .detail(look.progress)
                .hint(look.held ? fmt::format("The job is held: SELECT zdm.resume({}), or zdm.resume_all(), lets it go on.",
                                              job_id)
                                : "The job goes on; SELECT * FROM zdm.jobs shows what holds it.");
        }
        if (now_ms >= next_notice_ms) {
            notice(fmt::format("job {}: {}{}", job_id, look.progress, look.held ? " (held: zdm.resume lets it go on)" : ""));
            next_notice_ms = now_ms + std::min<std::int64_t>(60'000, now_ms * 2);
        }
        if (now_ms >= next_start_ms && !look.alive && !look.held) {
            // No runner holds it: perhaps no slot was free, or its process is gone. A surplus runner costs little.
            (void)start_runner(MyDatabaseId, look.status.session_role);
            next_start_ms = now_ms + 5000;
        }
        std::int64_t sleep_ms = pause_ms;
        if (timeout_ms >= 0) {
            sleep_ms = std::clamp<std::int64_t>(timeout_ms - now_ms, 1, sleep_ms);
        }
        pause_ms = std::min<std::int64_t>(pause_ms * 2, 200);
        pg::wait_latch(sleep_ms);
    }
}

}  // namespace zdm::jobs
