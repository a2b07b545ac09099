#include "backfill/run.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "backfill/backfill.hpp"
#include "core/backoff.hpp"
#include "core/sqlstate.hpp"
#include "jobs/blockers.hpp"
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

// The relation is not the one the cursor was made for: the pass over it starts again.
struct Rewritten {};

// Somebody holds a lock on the relation, or queues for one.
struct RelationBusy {
    std::string by;
};

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
            disable_timeout(STATEMENT_TIMEOUT, false);
        }
    }
    TimeLimit(const TimeLimit&) = delete;
    TimeLimit& operator=(const TimeLimit&) = delete;

  private:
    bool armed_ = false;
};

}  // namespace

BackfillRun::BackfillRun(jobs::JobContext& context) : context_(context), sizer_(100, positions_per_block) {}

double BackfillRun::batch_time_ms() const {
    return std::max(1.0, std::strtod(context_.option("batch_time").c_str(), nullptr));
}

int BackfillRun::lock_wait_ms() const {
    // Our waits end before the application's deadlock check begins, so that the application never is the victim.
    double const limit = std::min(batch_time_ms() / 2, DeadlockTimeout / 2.0);
    return std::max(1, static_cast<int>(limit));
}

void BackfillRun::prepare() {
    jobs::WorkTransaction work(context_);
    pg::set_local("lock_timeout", fmt::format("{}", jobs::lock_timeout_ms()).c_str());
    const jobs::Job& job = context_.job();
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

    if (!pg::guard([&] { return ConditionalLockRelationOid(slice.leaf, RowExclusiveLock); })) {
        pg::Bookkeeping as_extension;
        throw RelationBusy{jobs::relation_blocker(slice.leaf)};
    }
    enum class Leaf { same, rewritten, hidden } const leaf = pg::guard([&] {
        Relation relation = try_relation_open(slice.leaf, NoLock);
        if (relation == nullptr || compat::relation_file(relation) != slice.file) {
            if (relation != nullptr) {
                relation_close(relation, NoLock);
            }
            return Leaf::rewritten;
        }
        relation_close(relation, NoLock);
        return check_enable_rls(slice.leaf, job.owner, true) == RLS_ENABLED ? Leaf::hidden : Leaf::same;
    });
    if (leaf == Leaf::rewritten) {
        throw Rewritten{};
    }
    if (leaf == Leaf::hidden) {
        throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED,
                        fmt::format("row-level security of {} hides rows from the job's role", quoted_name(slice.leaf)))
            .hint("Run the job as the table's owner or as a role with BYPASSRLS.");
    }
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
            double const jitter = static_cast<double>(random() % 1000) / 1000.0;
            auto const pause = core::backoff_delay(Verdict::retry_lock, ++lock_tries_, jitter);
            context_.set_waiting(*busy);
            context_.sleep(std::min<std::int64_t>(pause.count(), 5000));
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

std::int64_t BackfillRun::after_failure(Slice& slice, std::int64_t from, std::int64_t to, bool cursor,
                                        core::Failure failure, double ms) {
    std::int64_t const covered = to - from;
    if (failure.sqlstate == core::sqlstate::not_converging) {
        throw pg::Error(std::move(failure));
    }
    switch (core::classify(failure.sqlstate)) {
        case Verdict::retry_lock:
            if (failure.sqlstate == "57014") {
                if (covered > 1 && ms >= batch_time_ms() * 0.9) {
                    sizer_.timed_out();
                    return from;
                }
                // Somebody's cancel: a request is obeyed when a transaction begins. Otherwise it was user code, or
                // whoever waits for a lock of ours: no hurry.
                { jobs::WorkTransaction const obeying(context_); }
                context_.set_waiting(fmt::format("cancelled: {}", failure.message));
                context_.sleep(core::backoff_delay(Verdict::retry_lock, ++lock_tries_, 0.5).count());
                return from;
            }
            if (covered > 1) {
                sizer_.blocked();  // the rows before the locked one can be committed
                return from;
            } else {
                // Exactly this row is held. It is left for the last look; meanwhile nothing of ours waits or is held.
                std::string by;
                {
                    jobs::WorkTransaction work(context_);
                    pg::Bookkeeping as_extension;
                    core::Tid const tid = core::from_position(from, positions_per_block);
                    by = jobs::row_blocker(slice.leaf, tid);
                    if (by.empty()) {
                        // Not the row itself: a lock that user code wants.
                        by = fmt::format("row {} of {}: {}", core::to_text(tid), quoted_name(slice.leaf), failure.message);
                    }
                }
                ++round_.blocked;
                context_.set_waiting(by);
                round_.blocker = by;
                pass_over(slice, from, cursor, 0);
                sizer_.finished(0, 0);
                return to;
            }
        case Verdict::retry_soon: {
            // A deadlock or a serialization failure: it was us who lost, as it should be. A smaller batch holds less.
            if (core::give_up(Verdict::retry_soon, ++lock_tries_)) {
                throw pg::Error(std::move(failure));
            }
            sizer_.blocked();
            context_.sleep(core::backoff_delay(Verdict::retry_soon, lock_tries_, 0.5).count());
            return from;
        }
        case Verdict::retry_slow:
            throw pg::Error(std::move(failure));
        case Verdict::permanent:
        case Verdict::bad_row:
            break;
    }
    if (!statement_checked_) {
        // Does the statement fail whatever the rows are? Then there is no row to look for.
        if (fails_without_rows(slice)) {
            throw pg::Error(std::move(failure));
        }
        statement_checked_ = true;
    }
    if (covered > 1) {
        sizer_.bisect(covered);
        return from;
    }
    row_failed(slice, from, cursor, failure);
    sizer_.finished(0, 0);
    return to;
}

bool BackfillRun::fails_without_rows(Slice& slice) {
    try {
        jobs::WorkTransaction work(context_);
        pg::AsRole as_role(context_.job().owner);
        (void)plans_->execute(slice.leaf, 0, 0);
        return false;
    } catch (const pg::PgError&) {
        return true;
    } catch (const pg::Error&) {
        return true;
    }
}

std::optional<std::string> BackfillRun::row_key(Oid leaf, std::int64_t position) {
    std::string const tid = core::to_text(core::from_position(position, positions_per_block));
    std::vector<std::string> columns;
    {
        jobs::WorkTransaction work(context_);
        pg::Bookkeeping as_extension;
        auto const rows = query(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
            " WHERE i.indrelid = $1::oid AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)",
            {text(leaf)});
        for (const auto& row : rows.rows) {
            columns.push_back(pg::as_string(row[0]));
        }
    }
    auto literal = [](const std::string& s) {
        std::string quoted = "'";
        for (char c : s) {
            quoted += c;
            if (c == '\'') {
                quoted += c;
            }
        }
        return quoted + "'";
    };
    std::string by_key;
    for (const std::string& column : columns) {
        const char* raw = column.c_str();
        by_key += fmt::format("{}{}::text, t.{}", by_key.empty() ? "" : ", ", literal(column),
                              pg::guard([&] { return quote_identifier(raw); }));
    }
    std::string const by_place = fmt::format("'ctid', {}", literal(tid));
    // Without SELECT on the key its place must do.
    for (const std::string& parts : {by_key, by_place}) {
        if (parts.empty()) {
            continue;
        }
        try {
            jobs::WorkTransaction work(context_);
            pg::AsRole as_role(context_.job().owner);
            auto const rows = pg::query_once(
                fmt::format("SELECT pg_catalog.jsonb_build_object({})::text FROM ONLY {} AS t"
                            " WHERE t.ctid OPERATOR(pg_catalog.=) {}::pg_catalog.tid",
                            parts, quoted_name(leaf), literal(tid)));
            if (rows.empty()) {
                return std::nullopt;
            }
            return pg::as_string(rows.front()[0]);
        } catch (const pg::PgError&) {
        }
    }
    return fmt::format("{{\"ctid\": \"{}\"}}", tid);
}

void BackfillRun::row_failed(Slice& slice, std::int64_t position, bool cursor, const core::Failure& failure) {
    auto const key = row_key(slice.leaf, position);
    if (!key) {
        throw pg::Error(failure);  // no row there: it is not a row's data that fails
    }
    bool const skip = context_.option("on_error") == "skip";
    const jobs::Job& job = context_.job();
    jobs::WorkTransaction work(context_);
    std::string const leaf = quoted_name(slice.leaf);
    std::string row;
    {
        pg::Bookkeeping as_extension;
        query(
            "INSERT INTO zdm.job_row_error (job_id, relation, relation_name, key, sqlstate, message)"
            " VALUES ($1::bigint, $2::oid, $3, $4::jsonb, $5, $6) ON CONFLICT (job_id, relation, key) DO UPDATE"
            " SET sqlstate = excluded.sqlstate, message = excluded.message, at = excluded.at",
            {text(job.id), text(slice.leaf), text(leaf), text(*key), text(failure.sqlstate), text(failure.message)});
        if (skip) {
            Progress const progress{.next = cursor ? std::optional(position + 1) : std::nullopt, .rows_skipped = 1};
            row = advance(job, slice, progress);
        }
    }
    work.commit();
    if (!skip) {
        core::Failure ending = failure;
        ending.context = fmt::format("row {} of {}{}{}", *key, leaf,
                                     ending.context.empty() ? "" : "\n", ending.context);
        ending.hint = fmt::format("Fix the row {} of {}, then SELECT zdm.retry({}); on_error => 'skip' passes such rows.",
                                  *key, leaf, job.id);
        throw pg::Error(std::move(ending));
    }
    slice.row = std::move(row);
    if (cursor) {
        slice.next = position + 1;
    }
    ++round_.skipped;
}

void BackfillRun::pass_over(Slice& slice, std::int64_t position, bool cursor, std::int64_t skipped) {
    if (!cursor) {
        return;
    }
    jobs::WorkTransaction work(context_);
    std::string row;
    {
        pg::Bookkeeping as_extension;
        row = advance(context_.job(), slice, Progress{.next = position + 1, .rows_skipped = skipped});
    }
    work.commit();
    slice.row = std::move(row);
    slice.next = position + 1;
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
        context_.log("restarted", "a table was rewritten or truncated: its pass starts again");
    }
}

BackfillRun::Found BackfillRun::look() {
    jobs::WorkTransaction work(context_);
    std::string const sql = look_statement(plans_->compiled());
    const char* raw = sql.c_str();
    Found found;
    pg::set_local("lock_timeout", fmt::format("{}", jobs::lock_timeout_ms()).c_str());
    {
        pg::AsRole as_role(context_.job().owner);
        // One statement under one snapshot: between two, a row could move behind the second from before the first.
        Portal portal = pg::guard([&] {
            SPIPlanPtr plan = SPI_prepare_cursor(raw, 0, nullptr, CURSOR_OPT_NO_SCROLL);
            if (plan == nullptr) {
                elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
            }
            return SPI_cursor_open(nullptr, plan, nullptr, nullptr, false);
        });
        for (;;) {
            std::uint64_t const fetched = pg::guard([&] {
                SPI_cursor_fetch(portal, true, 5000);
                return SPI_processed;
            });
            if (fetched == 0) {
                break;
            }
            struct Place {
                Oid leaf;
                BlockNumber block;
            };
            for (std::uint64_t i = 0; i < fetched; ++i) {
                Place const place = pg::guard([&] {
                    bool null = false;
                    Place p{};
                    p.leaf = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &null));
                    auto* tid = reinterpret_cast<ItemPointer>(DatumGetPointer(
                        SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &null)));
                    p.block = ItemPointerGetBlockNumberNoCheck(tid);
                    return p;
                });
                found.blocks[place.leaf].add(place.block);
            }
            found.rows += static_cast<std::int64_t>(fetched);
            SPI_freetuptable(SPI_tuptable);
        }
        pg::guard([&] { SPI_cursor_close(portal); });
    }
    work.commit();
    return found;
}

BackfillRun::Found BackfillRun::everything() {
    jobs::WorkTransaction work(context_);
    Found found;
    for (const Slice& slice : slices_) {
        core::BlockSet& blocks = found.blocks[slice.leaf];
        BlockNumber const count = pg::guard([&] {
            Relation relation = try_relation_open(slice.leaf, AccessShareLock);
            BlockNumber const n = relation == nullptr ? 0 : RelationGetNumberOfBlocks(relation);
            if (relation != nullptr) {
                relation_close(relation, AccessShareLock);
            }
            return n;
        });
        for (BlockNumber block = 0; block < count; ++block) {
            blocks.add(block);
        }
    }
    work.commit();
    return found;
}

void BackfillRun::settle() {
    context_.set_phase("last look");
    int idle_rounds = 0;
    for (int rounds = 1;; ++rounds) {
        Found found;
        std::optional<core::Failure> failure;
        try {
            found = look();
        } catch (const pg::PgError&) {
            failure = pg::current_failure();
        }
        if (failure) {
            if (failure->sqlstate == "57014") {
                continue;  // cancelled: the next transaction obeys whatever was asked for
            }
            Verdict const verdict = core::classify(failure->sqlstate);
            if (verdict != Verdict::bad_row && verdict != Verdict::permanent) {
                throw pg::Error(std::move(*failure));
            }
            // The condition itself raises on some row, so the look cannot say which rows are left. Batches over
            // everything find the row, and change whatever else needs it.
            found = everything();
        } else if (found.rows == 0) {
            return;
        }
        round_ = Round{};
        bool known = true;
        try {
            for (auto& [leaf, blocks] : found.blocks) {
                auto slice = std::find_if(slices_.begin(), slices_.end(), [&](const Slice& s) { return s.leaf == leaf; });
                if (slice == slices_.end()) {
                    known = false;
                    continue;
                }
                for (auto run = blocks.next_run(0); run; run = blocks.next_run(run->second + 1)) {
                    work_through(*slice, core::block_start(run->first, positions_per_block),
                                 core::block_start(run->second, positions_per_block) + positions_per_block, false);
                    if (run->second == core::max_block) {
                        break;
                    }
                }
            }
        } catch (const Rewritten&) {
            known = false;
        }
        if (!known) {
            // A leaf attached during the run, or one that was rewritten: it gets its own pass.
            context_.set_phase("pass");
            pass();
            context_.set_phase("last look");
            continue;
        }
        std::int64_t pause = 0;
        if (round_.changed > 0) {
            idle_rounds = 0;
            if (rounds >= 3) {
                std::string const text = fmt::format(
                    "rows keep coming back: {} in round {}; the application writes rows that need the backfill. "
                    "A trigger that sets the columns (a sync) ends this", found.rows, rounds);
                if (rounds == 3 || rounds % 10 == 0) {
                    context_.log("rows keep coming back", text);
                }
                pause = core::backoff_delay(Verdict::retry_lock, rounds - 2, 1.0).count();
                context_.set_waiting(text);
            }
        } else if (round_.blocked > 0) {
            context_.set_waiting(round_.blocker);
            pause = core::backoff_delay(Verdict::retry_lock, ++idle_rounds, 1.0).count();
        } else if (failure && round_.skipped == 0) {
            throw pg::Error(std::move(*failure));
        } else if (round_.skipped >= found.rows) {
            found.rows = std::max(found.rows, round_.skipped);
            throw pg::Error(pg::sqlstate_code(core::sqlstate::rows_remain),
                            fmt::format("{} rows of {} were skipped after errors and still need the backfill",
                                        found.rows, context_.job().relation_name))
                .hint(fmt::format("SELECT * FROM zdm.job_errors WHERE job_id = {0}; fix the rows, then "
                                  "SELECT zdm.retry({0}).", context_.id()));
        } else if (++idle_rounds >= 5) {
            throw pg::Error(pg::sqlstate_code(core::sqlstate::rows_remain),
                            fmt::format("{} rows of {} still match, but no UPDATE changes them", found.rows,
                                        context_.job().relation_name))
                .detail("A BEFORE trigger that returns NULL, or a rule, suppresses the update.")
                .hint(fmt::format("Look at the table's triggers, then SELECT zdm.retry({}).", context_.id()));
        } else {
            pause = 20 * idle_rounds;
        }
        if (pause > 0) {
            context_.sleep(std::min<std::int64_t>(pause, 60'000));
        }
    }
}

void BackfillRun::analyze() {
    context_.set_phase("analyze");
    std::string problem;
    try {
        jobs::WorkTransaction work(context_);
        pg::set_local("lock_timeout", fmt::format("{}", jobs::lock_timeout_ms()).c_str());
        {
            pg::AsRole as_role(context_.job().owner);
            pg::query_once(fmt::format("ANALYZE {}", plans_->compiled().relation_name));
        }
        work.commit();
    } catch (const pg::PgError& error) {
        problem = error.what();
    }
    if (!problem.empty()) {
        context_.log("analyze skipped", problem);
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
