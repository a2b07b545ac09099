// The launcher: one process a server, only when the library is preloaded. At server start and at promotion it starts
// runners in the databases that have unfinished jobs, and it tries again while jobs wait for a free worker slot.
#pragma once

namespace zdm::jobs {

// From _PG_init, while shared_preload_libraries is processed.
void register_launcher();

// A runner could not be registered: asks the launcher, where there is one, to try again. Allocates and raises nothing.
void launcher_slot_wanted() noexcept;

}  // namespace zdm::jobs
