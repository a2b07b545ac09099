// The kinds of jobs. A room registers how its jobs run; the engine does the rest.
#pragma once

#include <string>
#include <string_view>

#include "jobs/context.hpp"

namespace zdm::jobs {

struct Kind {
    const char* name;
    // Works until the job is done and returns a summary for the log. Throws Stopped (from WorkTransaction), or the
    // error that ends or delays the job (core::classify decides which).
    std::string (*run)(JobContext& context);
};

void register_kind(const Kind& kind);
const Kind* find_kind(std::string_view name);

}  // namespace zdm::jobs
