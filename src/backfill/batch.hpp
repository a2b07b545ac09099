// One batch: the statement for a leaf, its plan, and its execution.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "backfill/clause.hpp"
#include "core/positions.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

// Line pointers a heap page can have, plus one: offset 0 is the place before the first.
inline constexpr std::int64_t positions_per_block = MaxHeapTuplesPerPage + 1;

struct BatchResult {
    std::int64_t changed = 0;
    std::int64_t still_matching = 0;  // rows that match after their update: the clause does not converge
};

// Plans by leaf, for one compiled definition. Plans are generic and forced to be TID range scans of the leaf, whatever
// the statistics say: a partial index with stale ones would otherwise be walked once a batch. Only this choice is
// forced: sub-selects, foreign key checks and triggers are planned as anywhere.
class BatchPlans {
  public:
    explicit BatchPlans(Compiled compiled);
    ~BatchPlans();
    BatchPlans(const BatchPlans&) = delete;
    BatchPlans& operator=(const BatchPlans&) = delete;

    const Compiled& compiled() const { return compiled_; }

    // Changes the rows of a leaf from position `from` up to, not including, `to`. As the current user; needs an SPI
    // connection.
    BatchResult execute(Oid leaf, std::int64_t from, std::int64_t to);

    // Has the leaf another name than its plan? The plan would look for the old one, and may find another table.
    bool renamed(Oid leaf) const;

  private:
    SPIPlanPtr plan(Oid leaf);

    Compiled compiled_;
    std::map<Oid, SPIPlanPtr> plans_;
    std::map<Oid, std::string> names_;
};

}  // namespace zdm::backfill
