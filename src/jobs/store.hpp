// The job's tables: what is read from and written to them, and nothing else. Every function needs an SPI connection
// and the identity of pg::Bookkeeping.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/failure.hpp"
#include "core/job_state.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

using Pairs = std::vector<std::pair<std::string, pg::Text>>;

// A job as its runner knows it.
struct Job {
    std::int64_t id = 0;
    std::int64_t epoch = 0;
    std::string kind;
    Oid relation = InvalidOid;
    std::string relation_name;
    Oid turn = InvalidOid;  // topmost relation: jobs with the same one take turns
    Oid session_role = InvalidOid;
    Oid owner = InvalidOid;
    Pairs definition;
    Pairs settings;
    Pairs options;
};

// What a control function sees.
struct JobStatus {
    std::int64_t id = 0;
    core::JobState recorded = core::JobState::queued;
    core::Request request = core::Request::run;
    bool at_home = true;
    Oid owner = InvalidOid;         // in this database, also for a copy
    Oid session_role = InvalidOid;
    Oid relation = InvalidOid;
    int pid = 0;
    std::string kind;
    std::optional<core::Failure> error;
    bool in_this_transaction = false;
};

// pg_upgrade makes the extension's tables anew without the mark that keeps them out of logical decoding (jobs.sql): sets
// it again before anything is written.
void keep_out_of_decoding();

// Identity of this server, database and installation of the extension.
std::string home();

// Has the job left the running state, or been taken by another runner, since a snapshot showed it running in `epoch`?
// Looks at what is committed now, whatever snapshot the query around it has.
bool moved_on(std::int64_t job_id, std::int64_t epoch);

std::optional<JobStatus> find_status(std::int64_t job_id);
Job load_job(std::int64_t job_id);

// Every change of a recorded state goes through here: it checks the table of allowed moves, writes the row, the log,
// and what follows for jobs that depend on this one. The caller holds the job's lock.
struct Move {
    core::JobState to;
    std::string event;                   // for the log
    std::string message;
    std::optional<core::Failure> error;  // kept as last_error
    std::optional<std::int64_t> retry_after_ms;
    std::optional<std::string> waiting_for;
    bool reset_counters = false;
};
void move_job(std::int64_t job_id, core::JobState from, const Move& move);

void log_event(std::int64_t job_id, std::string_view event, std::string_view message);
void set_request(std::int64_t job_id, core::Request request);
void set_phase(std::int64_t job_id, std::string_view phase);

// Queued jobs that failed because of this one are queued again. Session roles that need a runner are requested.
void revive_dependents(std::int64_t job_id);

std::string array_literal(const std::vector<pg::Text>& values);
std::string array_literal(const std::vector<std::int64_t>& values);

// Deletes what zdm.job_retention has let go of.
void prune_history();

}  // namespace zdm::jobs
