#include "backfill/run.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "backfill/backfill.hpp"
#include "backfill/relation_lock.hpp"
#include "core/backoff.hpp"
#include "core/sqlstate.hpp"
#include "jobs/settings.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

using core::Verdict;
using pg::query;
using pg::text;

namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Cuts a statement off after `ms`, as statement_timeout would; background workers do not get that by themselves.
class TimeLimit {
  public:
    explicit TimeLimit(double ms) {
        if (ms > 0) {
            int const limit = std::max(1, static_cast<int>(ms));
            pg::guard([&] { enable_timeout_after(STATEMENT_TIMEOUT, limit); });
            armed_ = true;
        }
    }
    ~TimeLimit() { disarm(); }
    void disarm() {
        if (armed_) {
            armed_ = false;
            bool const fired = get_timeout_indicator(STATEMENT_TIMEOUT, false);
            disable_timeout(STATEMENT_TIMEOUT, false);
            if (fired) {
                QueryCancelPending = false;  // too late: what it was meant for is done
            }
        }
    }
    TimeLimit(const TimeLimit&) = delete;
    TimeLimit& operator=(const TimeLimit&) = delete;

  private:
    bool armed_ = false;
};

}  // namespace

void refuse_hidden_rows(Oid relation, Oid role) {
    if (pg::guard([&] { return check_enable_rls(relation, role, true) == RLS_ENABLED; })) {
        throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED,
                        fmt::format("row-level security of {} hides rows from the job's role", quoted_name(relation)))
            .hint("Run the job as the table's owner or as a role with BYPASSRLS.");
    }
}

BackfillRun::BackfillRun(jobs::JobContext& context) : context_(context), sizer_(100, positions_per_block) {}

double BackfillRun::batch_time_ms() const {
    return std::max(1.0, std::strtod(context_.option("batch_time").c_str(), nullptr));
}

int BackfillRun::lock_wait_ms() const {
    // Our waits end before the application's deadlock check begins, so that the application never is the victim.
    double const limit = std::min(batch_time_ms() / 2, DeadlockTimeout / 2.0);
    return std::max(1, static_cast<int>(limit));
}

void BackfillRun::wait_for_relation(const std::string& blocker) {
    double const jitter = static_cast<double>(random() % 1000) / 1000.0;
    auto const pause = core::backoff_delay(Verdict::retry_lock, ++lock_tries_, jitter);
    context_.set_waiting(blocker);
    context_.sleep(std::min<std::int64_t>(pause.count(), 5000));
}

void BackfillRun::prepare() {
    for (;;) {
        std::string blocker;
        try {
            prepare_now();
            return;
        } catch (const RelationBusy& relation) {
            blocker = relation.by;
        }
        wait_for_relation(blocker);
    }
}

void BackfillRun::prepare_now() {
    jobs::WorkTransaction work(context_);
    const jobs::Job& job = context_.job();
    lock_at_once(job.relation, RowExclusiveLock);
    pg::set_local("lock_timeout", fmt::format("{}", jobs::lock_timeout_ms()).c_str());
    Clauses const clauses{pg::as_string(context_.definition("set")), context_.definition("where")};
    std::vector<Oid> members;
    {
        pg::AsRole as_role(job.owner);
        plans_ = std::make_unique<BatchPlans>(compile(job.relation, clauses));
        members = leaves(job.relation);
    }
    slices_ = prepare_slices(job, members);
    work.commit();
    sizer_.set_batch_time(batch_time_ms());
}

std::int64_t BackfillRun::batch(Slice& slice, std::int64_t from, std::int64_t to, bool cursor) {
    auto const start = Clock::now();
    std::uint64_t const wal_before = pgWalUsage.wal_bytes;
    jobs::WorkTransaction work(context_);
    const jobs::Job& job = context_.job();

    lock_leaf_at_once(slice.leaf, RowExclusiveLock);
    bool const same = pg::guard([&] {
        Relation relation = try_relation_open(slice.leaf, NoLock);
        if (relation == nullptr) {
            return false;
        }
        bool const as_before = compat::relation_file(relation) == slice.file &&
                               (!slice.partition || relation->rd_rel->relispartition);
        relation_close(relation, NoLock);
        return as_before;
    });
    if (!same || plans_->renamed(slice.leaf)) {
        throw Rewritten{};
    }
    refuse_hidden_rows(slice.leaf, job.owner);
    pg::set_local("lock_timeout", fmt::format("{}", lock_wait_ms()).c_str());
    TimeLimit limit(to - from > 1 ? batch_time_ms() : 0);  // one row takes what it takes
    BatchResult result;
    {
        pg::AsRole as_role(job.owner);
        result = plans_->execute(slice.leaf, from, to);
        pg::force_deferred();
    }
    limit.disarm();
    pg::set_local("lock_timeout", "0");
    if (result.still_matching > 0) {
        throw pg::Error(pg::sqlstate_code(core::sqlstate::not_converging),
                        fmt::format("{} of {} rows of {} still match after their update", result.still_matching,
                                    result.changed, quoted_name(slice.leaf)))
            .detail(fmt::format("Rows that still need it: {}", plans_->compiled().predicate))
            .hint("The SET list must make the WHERE clause false; a trigger may have changed the value. "
                  "Nothing of this batch was kept.");
    }
    Progress progress{.next = cursor ? std::optional(to) : std::nullopt,
                      .rows_done = result.changed,
                      .rows_skipped = 0,
                      .wal_bytes = static_cast<std::int64_t>(pgWalUsage.wal_bytes - wal_before),
                      .busy_ms = ms_since(start)};
    std::string row;
    {
        pg::Bookkeeping as_extension;
        row = advance(job, slice, progress);
    }
    work.commit();
    slice.row = std::move(row);
    if (cursor) {
        slice.next = to;
    }
    return result.changed;
}

void BackfillRun::work_through(Slice& slice, std::int64_t from, std::int64_t to, bool cursor) {
    while (from < to) {
        std::int64_t const until = std::min(to, from + sizer_.next());
        auto const start = Clock::now();
        // What stopped the batch is handled after its exception is gone: handling it takes transactions.
        std::optional<core::Failure> failure;
        std::optional<std::string> busy;
        std::int64_t changed = 0;
        try {
            changed = batch(slice, from, until, cursor);
        } catch (const jobs::Stopped&) {
            throw;
        } catch (const Rewritten&) {
            throw;
        } catch (const RelationBusy& relation) {
            busy = relation.by;
        } catch (...) {
            failure = pg::current_failure();
        }
        double const ms = ms_since(start);
        if (busy) {
            wait_for_relation(*busy);
            continue;
        }
        if (failure) {
            from = after_failure(slice, from, until, cursor, std::move(*failure), ms);
            sizer_.set_batch_time(batch_time_ms());
            continue;
        }
        lock_tries_ = 0;
        if (cursor || changed > 0) {
            context_.set_waiting("");  // a later look passes over rows that need nothing, and still waits for the others
        }
        round_.changed += changed;
        sizer_.set_batch_time(batch_time_ms());
        sizer_.finished(ms, changed);
        from = until;
        pg::guard([] { pgstat_report_stat(false); });
    }
}

void BackfillRun::pass() {
    for (;;) {
        prepare();
        try {
            for (Slice& slice : slices_) {
                while (!slice.done()) {
                    work_through(slice, slice.next, slice.end, true);
                }
            }
            return;
        } catch (const Rewritten&) {
            // The leaf is gone or has a new file: look at what there is now.
        }
        context_.log("restarted", "a table was rewritten or truncated (its pass starts again), renamed or detached");
    }
}

std::string BackfillRun::run() {
    context_.set_phase("pass");
    pass();
    settle();
    analyze();
    jobs::WorkTransaction work(context_);
    std::string summary;
    {
        pg::Bookkeeping as_extension;
        query("DELETE FROM zdm.job_row_error WHERE job_id = $1::bigint", {text(context_.id())});
        auto const row = query(
            "SELECT coalesce(sum(rows_done), 0), coalesce(sum(batches), 0) FROM zdm.job_slice WHERE job_id = $1::bigint",
            {text(context_.id())});
        summary = fmt::format("{} rows in {} batches", pg::as_string(row.front()[0]), pg::as_string(row.front()[1]));
    }
    work.commit();
    return summary;
}

std::string run_backfill(jobs::JobContext& context) { return BackfillRun(context).run(); }

}  // namespace zdm::backfill
