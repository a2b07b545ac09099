// The backfill room: rows of a relation changed in batches, in heap order, each exactly once.
#pragma once

#include "backfill/clause.hpp"
#include "jobs/context.hpp"
#include "jobs/enqueue.hpp"

namespace zdm::backfill {

// From _PG_init: registers the job kinds of this room.
void set_up();

// Checks everything that can be known at the call and enqueues the job. Returns its id.
std::int64_t start_backfill(Oid relation, const Clauses& clauses, jobs::CommonArguments common);

// The job itself: a pass over every leaf, then last looks until one finds nothing.
std::string run_backfill(jobs::JobContext& context);

}  // namespace zdm::backfill
