// The end of a backfill: last looks over the whole relation until one finds nothing, then ANALYZE.
#include "backfill/run.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "backfill/relation_lock.hpp"
#include "core/backoff.hpp"
#include "core/sqlstate.hpp"
#include "jobs/settings.hpp"
#include "pg/give_way.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

using core::Verdict;
using pg::query;
using pg::text;

namespace {

// Does the plan use a function or type that is not the server's own?
bool calls_user_code(SPIPlanPtr plan) {
    return pg::guard([&] {
        CachedPlan* cached = SPI_plan_get_cached_plan(plan);
        if (cached == nullptr) {
            return true;
        }
        bool found = false;
        ListCell* statement;
        foreach (statement, cached->stmt_list) {
            found = found || lfirst_node(PlannedStmt, statement)->invalItems != NIL;
        }
        ReleaseCachedPlan(cached, nullptr);  // a plan that is not kept has no owner
        return found;
    });
}

}  // namespace

BackfillRun::Found BackfillRun::look() {
    jobs::WorkTransaction work(context_);
    std::string const sql = look_statement(plans_->compiled());
    const char* raw = sql.c_str();
    Found found;
    Oid const relation = context_.job().relation;
    lock_at_once(relation, AccessShareLock);
    if (quoted_name(relation) != plans_->compiled().relation_name) {
        throw Rewritten{};
    }
    refuse_hidden_rows(relation, context_.job().owner);
    pg::set_local("lock_timeout", fmt::format("{}", jobs::lock_timeout_ms()).c_str());
    {
        pg::AsRole as_role(context_.job().owner);
        // One statement under one snapshot: between two, a row could move behind the second from before the first.
        SPIPlanPtr const plan = pg::guard([&] {
            SPIPlanPtr prepared = SPI_prepare_cursor(raw, 0, nullptr, CURSOR_OPT_NO_SCROLL);
            if (prepared == nullptr) {
                elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
            }
            return prepared;
        });
        // A look over a big table is long. Whoever waits for the table may cancel it, and the look begins again; unless
        // functions of users may run queries of their own in it (see pg::StandFirm).
        pg::give_way(!calls_user_code(plan));
        Portal portal = pg::guard([&] { return SPI_cursor_open(nullptr, plan, nullptr, nullptr, false); });
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
        lock_leaf_at_once(slice.leaf, AccessShareLock);
        BlockNumber const count = pg::guard([&] {
            Relation relation = try_relation_open(slice.leaf, NoLock);
            BlockNumber const n = relation == nullptr ? 0 : RelationGetNumberOfBlocks(relation);
            if (relation != nullptr) {
                relation_close(relation, NoLock);
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
    int rounds = 0;  // that changed rows
    int cancels = 0;
    for (;;) {
        Found found;
        std::optional<core::Failure> failure;
        std::optional<std::string> busy;
        bool known = true;
        try {
            found = look();
        } catch (const RelationBusy& relation) {
            busy = relation.by;
        } catch (const Rewritten&) {
            known = false;
        } catch (const pg::PgError&) {
            failure = pg::current_failure();
        }
        if (busy) {
            wait_for_relation(*busy);
            continue;
        }
        lock_tries_ = 0;
        if (failure) {
            if (failure->sqlstate == "57014") {
                // Cancelled: the next transaction obeys whatever was asked for. Otherwise it was user code, or whoever
                // waits for a lock of ours: no hurry.
                { jobs::WorkTransaction const obeying(context_); }
                context_.set_waiting(fmt::format("cancelled: {}", failure->message));
                context_.sleep(core::backoff_delay(Verdict::retry_lock, ++cancels, 0.5).count());
                continue;
            }
            Verdict const verdict = core::classify(failure->sqlstate);
            if (verdict != Verdict::bad_row && verdict != Verdict::permanent) {
                throw pg::Error(std::move(*failure));
            }
            // The condition itself raises on some row, so the look cannot say which rows are left. Batches over
            // everything find the row, and change whatever else needs it.
            try {
                found = everything();
            } catch (const RelationBusy& relation) {
                busy = relation.by;
            }
            if (busy) {
                wait_for_relation(*busy);
                continue;
            }
        } else if (known && found.rows == 0) {
            return;
        }
        cancels = 0;
        round_ = Round{};
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
            if (++rounds >= 3) {
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
            pg::give_way(true);
            pg::AsRole as_role(context_.job().owner);
            pg::query_once(fmt::format("ANALYZE {}", quoted_name(context_.job().relation)));
        }
        work.commit();
    } catch (const pg::PgError& error) {
        problem = error.what();
    }
    if (!problem.empty()) {
        context_.log("analyze skipped", problem);
    }
}

}  // namespace zdm::backfill
