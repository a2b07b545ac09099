// How a backfill runs. A pass moves a cursor over every leaf; then last looks find what the pass could not see (rows
// moved behind the cursor, new rows, rows that somebody held) until one finds nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backfill/batch.hpp"
#include "backfill/slices.hpp"
#include "core/batch_sizer.hpp"
#include "core/block_set.hpp"
#include "jobs/context.hpp"

namespace zdm::backfill {

// The relation is not the one the cursor was made for (its pass starts again), or has another name than the plans.
struct Rewritten {};

// Raises where row-level security would hide rows of the relation from the role. Needs a lock on the relation.
void refuse_hidden_rows(Oid relation, Oid role);

class BackfillRun {
  public:
    explicit BackfillRun(jobs::JobContext& context);
    std::string run();

  private:
    struct Found {
        std::int64_t rows = 0;
        std::map<Oid, core::BlockSet> blocks;
    };
    // What happened to the rows of a look.
    struct Round {
        std::int64_t changed = 0;
        std::int64_t skipped = 0;
        std::int64_t blocked = 0;
        std::string blocker;  // the last one
    };

    void prepare();
    void prepare_now();
    // Sleeps before the next try for a relation that somebody has locked.
    void wait_for_relation(const std::string& blocker);
    void pass();
    Found look();
    Found everything();  // all blocks there are
    void settle();  // last looks until nothing is left
    void analyze();

    // Works from position `from` to `to` of a slice. `cursor`: the slice's cursor moves along.
    void work_through(Slice& slice, std::int64_t from, std::int64_t to, bool cursor);
    // One batch, committed. Throws what stopped it; nothing of it remains then.
    std::int64_t batch(Slice& slice, std::int64_t from, std::int64_t to, bool cursor);
    // What to do about an exception of a batch; returns the position to go on from.
    std::int64_t after_failure(Slice& slice, std::int64_t from, std::int64_t to, bool cursor, core::Failure failure,
                               double ms);
    // The one row at this position failed: recorded, and thrown or passed over (on_error).
    void row_failed(Slice& slice, std::int64_t position, bool cursor, const core::Failure& failure);
    void pass_over(Slice& slice, std::int64_t position, bool cursor, std::int64_t skipped);
    bool fails_without_rows(Slice& slice);
    std::optional<std::string> row_key(Oid leaf, std::int64_t position);

    double batch_time_ms() const;
    int lock_wait_ms() const;

    jobs::JobContext& context_;
    std::unique_ptr<BatchPlans> plans_;
    std::vector<Slice> slices_;
    core::BatchSizer sizer_;
    Round round_;
    int lock_tries_ = 0;
    bool statement_checked_ = false;
};

}  // namespace zdm::backfill
