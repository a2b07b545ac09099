#include "core/job_state.hpp"

#include <map>
#include <set>
#include <string>
#include <utility>

#include <gtest/gtest.h>

using namespace zdm::core;

namespace {

using enum JobState;

constexpr JobState all_states[] = {queued, running, paused, succeeded, failed, cancelled, interrupted};
constexpr Request all_requests[] = {Request::run, Request::pause, Request::cancel};
constexpr ControlCall all_calls[] = {ControlCall::pause, ControlCall::resume, ControlCall::cancel,
                                     ControlCall::retry};

TEST(JobState, NamesRoundTripAndAreThoseOfTheView) {
    std::set<std::string_view> names;
    for (const JobState state : all_states) {
        EXPECT_EQ(parse_job_state(to_string(state)), state);
        names.insert(to_string(state));
    }
    EXPECT_EQ(names, (std::set<std::string_view>{"queued", "running", "paused", "succeeded", "failed",
                                                 "cancelled", "interrupted"}));
}

TEST(JobState, RequestNamesRoundTrip) {
    std::set<std::string_view> names;
    for (const Request request : all_requests) {
        EXPECT_EQ(parse_request(to_string(request)), request);
        names.insert(to_string(request));
    }
    EXPECT_EQ(names, (std::set<std::string_view>{"run", "pause", "cancel"}));
}

TEST(JobState, ControlCallNames) {
    EXPECT_EQ(to_string(ControlCall::pause), "pause");
    EXPECT_EQ(to_string(ControlCall::resume), "resume");
    EXPECT_EQ(to_string(ControlCall::cancel), "cancel");
    EXPECT_EQ(to_string(ControlCall::retry), "retry");
}

TEST(JobState, ParseRefusesWhatIsNoName) {
    for (const char* text : {"", "Queued", "queued ", "queue", "canceled", "run", "?"}) {
        EXPECT_FALSE(parse_job_state(text)) << text;
    }
    for (const char* text : {"", "RUN", "running", "pause ", "?"}) {
        EXPECT_FALSE(parse_request(text)) << text;
    }
}

TEST(JobState, RecordedAndTerminal) {
    const std::set<JobState> kept{queued, running, succeeded, failed, cancelled};
    const std::set<JobState> ended{succeeded, failed, cancelled};
    for (const JobState state : all_states) {
        EXPECT_EQ(recorded(state), kept.contains(state)) << to_string(state);
        EXPECT_EQ(terminal(state), ended.contains(state)) << to_string(state);
    }
}

TEST(JobState, MoveMatrix) {
    const std::set<std::pair<JobState, JobState>> allowed{
        {queued, running},  {queued, failed},     {queued, cancelled}, {running, queued},
        {running, running}, {running, succeeded}, {running, failed},   {running, cancelled},
        {failed, queued},   {cancelled, queued}};
    for (const JobState from : all_states) {
        for (const JobState to : all_states) {
            EXPECT_EQ(move_allowed(from, to), allowed.contains({from, to}))
                << to_string(from) << " -> " << to_string(to);
        }
    }
}

TEST(JobState, MovesStayAmongRecordedStatesAndSuccessIsFinal) {
    for (const JobState from : all_states) {
        for (const JobState to : all_states) {
            if (move_allowed(from, to)) {
                EXPECT_TRUE(recorded(from) && recorded(to));
                EXPECT_NE(from, succeeded);
            }
        }
    }
}

TEST(JobState, EveryRecordedStateIsReachableFromQueued) {
    std::set<JobState> reached{queued};
    for (std::size_t before = 0; before != reached.size();) {
        before = reached.size();
        for (const JobState from : std::set<JobState>(reached)) {
            for (const JobState to : all_states) {
                if (move_allowed(from, to)) {
                    reached.insert(to);
                }
            }
        }
    }
    EXPECT_EQ(reached, (std::set<JobState>{queued, running, succeeded, failed, cancelled}));
}

TEST(JobState, ShownMatrix) {
    struct Row {
        JobState recorded;
        Request request;
        JobState dead;
        JobState alive;
    };
    const Row rows[] = {
        {queued, Request::run, queued, queued},
        {queued, Request::pause, paused, queued},
        {queued, Request::cancel, cancelled, queued},
        {running, Request::run, interrupted, running},
        {running, Request::pause, paused, running},
        {running, Request::cancel, cancelled, running},
        {succeeded, Request::run, succeeded, succeeded},
        {succeeded, Request::pause, succeeded, succeeded},
        {succeeded, Request::cancel, succeeded, succeeded},
        {failed, Request::run, failed, failed},
        {failed, Request::pause, failed, failed},
        {failed, Request::cancel, failed, failed},
        {cancelled, Request::run, cancelled, cancelled},
        {cancelled, Request::pause, cancelled, cancelled},
        {cancelled, Request::cancel, cancelled, cancelled},
    };
    for (const Row& row : rows) {
        const auto where = std::string(to_string(row.recorded)) + " " + std::string(to_string(row.request));
        EXPECT_EQ(shown_state(row.recorded, row.request, false), row.dead) << where;
        EXPECT_EQ(shown_state(row.recorded, row.request, true), row.alive) << where;
    }
}

TEST(JobState, NothingDeadIsShownRunningAndNothingAliveIsShownInterrupted) {
    for (const JobState state : {queued, running, succeeded, failed, cancelled}) {
        for (const Request request : all_requests) {
            EXPECT_NE(shown_state(state, request, false), running);
            EXPECT_NE(shown_state(state, request, true), interrupted);
            EXPECT_NE(shown_state(state, request, true), paused);
        }
    }
}

TEST(JobState, ControlMatrix) {
    using Key = std::pair<ControlCall, JobState>;
    const std::map<Key, JobState> allowed{
        {{ControlCall::pause, queued}, paused},        {{ControlCall::pause, running}, paused},
        {{ControlCall::pause, interrupted}, paused},   {{ControlCall::pause, paused}, paused},
        {{ControlCall::resume, paused}, queued},       {{ControlCall::resume, interrupted}, queued},
        {{ControlCall::resume, queued}, queued},       {{ControlCall::resume, running}, running},
        {{ControlCall::cancel, queued}, cancelled},    {{ControlCall::cancel, running}, cancelled},
        {{ControlCall::cancel, paused}, cancelled},    {{ControlCall::cancel, interrupted}, cancelled},
        {{ControlCall::cancel, cancelled}, cancelled}, {{ControlCall::retry, failed}, queued},
        {{ControlCall::retry, cancelled}, queued},     {{ControlCall::retry, interrupted}, queued},
        {{ControlCall::retry, queued}, queued},        {{ControlCall::retry, running}, running}};
    for (const ControlCall call : all_calls) {
        for (const JobState shown : all_states) {
            const auto found = allowed.find(Key{call, shown});
            const auto expected = found == allowed.end() ? std::nullopt : std::optional{found->second};
            EXPECT_EQ(asked_state(call, shown), expected) << to_string(call) << " of " << to_string(shown);
        }
    }
}

TEST(JobState, SucceededRefusesEveryCall) {
    for (const ControlCall call : all_calls) {
        EXPECT_FALSE(asked_state(call, succeeded));
    }
}

// Calling twice must be as good as calling once: what a call leads to accepts the same call.
TEST(JobState, ControlCallsCanBeRepeated) {
    for (const ControlCall call : all_calls) {
        for (const JobState shown : all_states) {
            if (const auto asked = asked_state(call, shown)) {
                EXPECT_EQ(asked_state(call, *asked), asked) << to_string(call) << " of " << to_string(shown);
            }
        }
    }
}

}  // namespace
