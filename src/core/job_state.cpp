#include "core/job_state.hpp"

namespace zdm::core {

namespace {

template <typename Value>
struct Named {
    Value value;
    std::string_view name;
};

constexpr Named<JobState> state_names[] = {
    {JobState::queued, "queued"},          {JobState::running, "running"}, {JobState::paused, "paused"},
    {JobState::succeeded, "succeeded"},    {JobState::failed, "failed"},   {JobState::cancelled, "cancelled"},
    {JobState::interrupted, "interrupted"}};

constexpr Named<Request> request_names[] = {
    {Request::run, "run"}, {Request::pause, "pause"}, {Request::cancel, "cancel"}};

constexpr Named<ControlCall> call_names[] = {{ControlCall::pause, "pause"},
                                             {ControlCall::resume, "resume"},
                                             {ControlCall::cancel, "cancel"},
                                             {ControlCall::retry, "retry"}};

template <typename Value, std::size_t N>
std::string_view name_of(const Named<Value> (&names)[N], Value value) {
    for (const auto& entry : names) {
        if (entry.value == value) {
            return entry.name;
        }
    }
    return "?";  // not a value of the type
}

template <typename Value, std::size_t N>
std::optional<Value> value_of(const Named<Value> (&names)[N], std::string_view name) {
    for (const auto& entry : names) {
        if (entry.name == name) {
            return entry.value;
        }
    }
    return std::nullopt;
}

struct Move {
    JobState from;
    JobState to;
};

// The moves between recorded states; what is not here is not allowed.
constexpr Move moves[] = {
    {JobState::queued, JobState::running},     // claimed by a runner
    {JobState::queued, JobState::failed},      // a job it depends on failed
    {JobState::queued, JobState::cancelled},   //
    {JobState::running, JobState::queued},     // paused, backing off, or giving its turn away
    {JobState::running, JobState::running},    // taken up after its process vanished
    {JobState::running, JobState::succeeded},  //
    {JobState::running, JobState::failed},     //
    {JobState::running, JobState::cancelled},  //
    {JobState::failed, JobState::queued},      // retry
    {JobState::cancelled, JobState::queued},   // retry
};

struct Answer {
    ControlCall call;
    JobState shown;
    JobState asked;
};

// What control calls ask for; what is not here is refused.
constexpr Answer answers[] = {
    {ControlCall::pause, JobState::queued, JobState::paused},
    {ControlCall::pause, JobState::running, JobState::paused},
    {ControlCall::pause, JobState::interrupted, JobState::paused},
    {ControlCall::pause, JobState::paused, JobState::paused},

    {ControlCall::resume, JobState::paused, JobState::queued},
    {ControlCall::resume, JobState::interrupted, JobState::queued},
    {ControlCall::resume, JobState::queued, JobState::queued},
    {ControlCall::resume, JobState::running, JobState::running},

    {ControlCall::cancel, JobState::queued, JobState::cancelled},
    {ControlCall::cancel, JobState::running, JobState::cancelled},
    {ControlCall::cancel, JobState::paused, JobState::cancelled},
    {ControlCall::cancel, JobState::interrupted, JobState::cancelled},
    {ControlCall::cancel, JobState::cancelled, JobState::cancelled},

    // A paused job is resumed, not retried: retry must not undo what somebody decided.
    {ControlCall::retry, JobState::failed, JobState::queued},
    {ControlCall::retry, JobState::cancelled, JobState::queued},
    {ControlCall::retry, JobState::interrupted, JobState::queued},
    {ControlCall::retry, JobState::queued, JobState::queued},
    {ControlCall::retry, JobState::running, JobState::running},
};

}  // namespace

std::string_view to_string(JobState state) {
    return name_of(state_names, state);
}

std::string_view to_string(Request request) {
    return name_of(request_names, request);
}

std::string_view to_string(ControlCall call) {
    return name_of(call_names, call);
}

std::optional<JobState> parse_job_state(std::string_view text) {
    return value_of(state_names, text);
}

std::optional<Request> parse_request(std::string_view text) {
    return value_of(request_names, text);
}

bool recorded(JobState state) {
    return state != JobState::paused && state != JobState::interrupted;
}

bool terminal(JobState state) {
    return state == JobState::succeeded || state == JobState::failed || state == JobState::cancelled;
}

bool move_allowed(JobState from, JobState to) {
    for (const Move& move : moves) {
        if (move.from == from && move.to == to) {
            return true;
        }
    }
    return false;
}

JobState shown_state(JobState recorded_state, Request request, bool alive) {
    if (terminal(recorded_state) || alive) {
        return recorded_state;
    }
    // Nobody works on it, so the request is as good as obeyed.
    if (request == Request::pause) {
        return JobState::paused;
    }
    if (request == Request::cancel) {
        return JobState::cancelled;
    }
    return recorded_state == JobState::running ? JobState::interrupted : recorded_state;
}

std::optional<JobState> asked_state(ControlCall call, JobState shown) {
    for (const Answer& answer : answers) {
        if (answer.call == call && answer.shown == shown) {
            return answer.asked;
        }
    }
    return std::nullopt;
}

}  // namespace zdm::core
