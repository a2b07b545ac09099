// Waiting on the process latch, and waking others.
#pragma once

#include <cstdint>

#include "pg/postgres.hpp"

namespace zdm::pg {

// Sleeps until the latch is set or `ms` milliseconds have passed (negative: until the latch is set). Processes interrupts and, in a
// worker, a reload of the configuration. Shown as wait event 'Extension' in pg_stat_activity.
void wait_latch(std::int64_t ms);

// In a worker: reads the configuration again if SIGHUP asked for it.
void process_config_reload();

// Sets the latch of every background worker of this database. A spurious wake-up costs nothing, a missed one would
// cost a wait, so nobody is looked up: allocates nothing, raises nothing, fit for a commit callback.
void wake_workers() noexcept;

// Is a background worker of this type (bgw_type) in this database? For a commit callback as well.
bool worker_present(const char* type) noexcept;

// Sends SIGINT to a background worker of this database: cancels the statement it runs. False when there is none.
bool interrupt_worker(int pid) noexcept;

}  // namespace zdm::pg
