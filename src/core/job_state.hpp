// Promise: the states of a job, the moves between them and what control calls do are tables, here and nowhere
// else. A *recorded* state is what the catalog row says; a *shown* state is what users see: derived from the
// recorded one, from what was asked for, and from whether a process holds the job's lock.
#pragma once

#include <optional>
#include <string_view>

namespace zdm::core {

// Recorded: queued, running, succeeded, failed, cancelled. Only shown: paused, interrupted.
enum class JobState { queued, running, paused, succeeded, failed, cancelled, interrupted };

// What users want of a job; kept apart from its progress, so that asking never waits for a batch.
enum class Request { run, pause, cancel };

enum class ControlCall { pause, resume, cancel, retry };

std::string_view to_string(JobState state);
std::string_view to_string(Request request);
std::string_view to_string(ControlCall call);

// The inverse of to_string, exact and case-sensitive; nullopt for anything else.
std::optional<JobState> parse_job_state(std::string_view text);
std::optional<Request> parse_request(std::string_view text);

// Whether a catalog row may hold this state.
bool recorded(JobState state);

// Whether the job has ended (a retry may begin it again).
bool terminal(JobState state);

// Whether a recorded state may be replaced by another; false where either is not a recorded state.
bool move_allowed(JobState from, JobState to);

// What users see. `alive`: a process holds the job's lock. A request that a living process has not obeyed yet
// does not show: the job is still what it is.
JobState shown_state(JobState recorded_state, Request request, bool alive);

// The state that a control call asks for, given the shown one; nullopt: the call is refused. Equal to the
// shown state: nothing to do but to record the request (which takes back an earlier one not obeyed yet).
std::optional<JobState> asked_state(ControlCall call, JobState shown);

}  // namespace zdm::core
