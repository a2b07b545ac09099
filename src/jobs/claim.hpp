// Which job a runner does next. One runner decides at a time, under the gate lock, so that none is taken twice, none
// is forgotten between two processes, and turns on a relation are kept.
#pragma once

#include <cstdint>
#include <optional>

#include "jobs/context.hpp"
#include "jobs/store.hpp"

namespace zdm::jobs {

// Who the runner is.
struct RunnerIdentity {
    Oid database = InvalidOid;
    Oid session_role = InvalidOid;
    Oid owner = InvalidOid;  // the role it has become: it runs jobs of this role alone from then on
    Oid job_table = InvalidOid;
};

struct Decision {
    enum class What { run, sleep, exit } what = What::exit;
    std::optional<Job> job;      // run
    std::int64_t sleep_ms = -1;  // sleep; negative: until somebody wakes the runner
};

// Decides, and on `run` has recorded the start, committed, with the locks in `holds`. `keeper` is held while the
// decision is to sleep. `attempt` counts failed tries in a row to start another runner.
Decision decide(RunnerIdentity& self, Holds& holds, pg::SessionLock& keeper, int& attempt);

}  // namespace zdm::jobs
