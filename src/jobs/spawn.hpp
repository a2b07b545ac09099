// Starting runners and waking them. What a session asks for happens when its transaction commits, and never happens
// when it rolls back.
#pragma once

#include <cstdint>

#include "pg/postgres.hpp"

namespace zdm::jobs {

// At commit: register a runner for jobs of this session role, and wake the runners that sleep. A surplus runner finds
// that out and exits, so callers ask whenever there may be work.
void request_runner(Oid session_role);
// At commit: wake all runners of this database.
void request_wake();
// At commit: cancel the statement that this runner executes, and wake it.
void request_interrupt(int pid);
// Must run once a process, from _PG_init.
void register_spawn_callbacks();

// Registers a runner now. False when the server has no free background worker slot; the launcher, where there is
// one, is told and tries again.
bool start_runner(Oid database, Oid session_role) noexcept;

// What a runner is told, in bgw_extra.
struct RunnerArguments {
    Oid database;
    Oid session_role;
};

inline constexpr const char* runner_type = "zdm_ext runner";

// Restart interval of runners after a crash or pg_terminate_backend, in seconds.
inline constexpr int runner_restart_s = 1;

}  // namespace zdm::jobs
