// Enqueue: the one way a job comes into being. Every room's enqueuing function ends here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "jobs/settings.hpp"
#include "jobs/store.hpp"

namespace zdm::jobs {

// What every enqueuing call takes after its own arguments.
struct CommonArguments {
    std::optional<std::string> name;
    std::vector<std::int64_t> depends_on;
    bool paused = false;
    OptionValues options;  // given as arguments: they override the session's settings
};

struct NewJob {
    std::string kind;
    Oid relation = InvalidOid;
    std::string relation_name;
    Pairs definition;       // equal definitions under one name are the same job
    std::string statement;  // the definition for people
    CommonArguments common;
};

// Raises where the job could never run as its caller: current user that the session's user may not become, a standby.
// Room functions call it before they look at anything else.
void check_caller();

// Writes the job in the caller's transaction and asks for a runner at its commit. Returns the id of an existing job
// when one of that name has the same definition.
std::int64_t enqueue(const NewJob& job);

// Checks values against core/options.hpp: bounds, words, and options that this version does not have yet.
void check_options(const OptionValues& options);

}  // namespace zdm::jobs
