// The settings zdm.*: the engine's own, and one for each option of pace (core/options.hpp declares those once).
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace zdm::jobs {

// Name and canonical text (integers, on/off, milliseconds) of options.
using OptionValues = std::vector<std::pair<std::string, std::string>>;

void define_settings();

bool enabled();
int max_workers();
int lock_timeout_ms();
int job_retention_s();
int name_retention_s();

// The value in force in this session for every option of pace.
OptionValues captured_options();

}  // namespace zdm::jobs
