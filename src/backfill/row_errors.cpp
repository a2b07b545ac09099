// What stops a batch: locks of others, and rows that fail, which are isolated by halving.
#include "backfill/run.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "backfill/relation_lock.hpp"
#include "core/backoff.hpp"
#include "core/sqlstate.hpp"
#include "jobs/blockers.hpp"
#include "jobs/settings.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

using core::Verdict;
using pg::query;
using pg::text;

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
        lock_leaf_at_once(slice.leaf, RowExclusiveLock);
        pg::set_local("lock_timeout", fmt::format("{}", lock_wait_ms()).c_str());
        pg::AsRole as_role(context_.job().owner);
        (void)plans_->execute(slice.leaf, 0, 0);
        return false;
    } catch (const RelationBusy&) {
        return false;  // not known
    } catch (const pg::PgError&) {
        Verdict const verdict = core::classify(pg::current_failure().sqlstate);
        return verdict == Verdict::permanent || verdict == Verdict::bad_row;
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
        const char* raw = s.c_str();
        return std::string(pg::guard([&] { return quote_literal_cstr(raw); }));
    };
    std::string by_key;
    for (const std::string& column : columns) {
        const char* raw = column.c_str();
        by_key += fmt::format("{}{}::text, t.{}", by_key.empty() ? "" : ", ", literal(column),
                              pg::guard([&] { return quote_identifier(raw); }));
    }
    std::string const by_place = fmt::format("'ctid', {}", literal(tid));
    // Without SELECT on the key its place must do, and where the key is too long for the index of recorded errors.
    constexpr std::size_t longest_key = 2000;
    for (const std::string& parts : {by_key, by_place}) {
        if (parts.empty()) {
            continue;
        }
        try {
            jobs::WorkTransaction work(context_);
            pg::set_local("lock_timeout", fmt::format("{}", jobs::lock_timeout_ms()).c_str());
            pg::AsRole as_role(context_.job().owner);
            auto const rows = pg::query_once(
                fmt::format("SELECT pg_catalog.jsonb_build_object({})::text FROM ONLY {} AS t"
                            " WHERE t.ctid OPERATOR(pg_catalog.=) {}::pg_catalog.tid",
                            parts, quoted_name(leaf), literal(tid)));
            if (rows.empty()) {
                return std::nullopt;
            }
            std::string key = pg::as_string(rows.front()[0]);
            if (key.size() <= longest_key) {
                return key;
            }
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

}  // namespace zdm::backfill
