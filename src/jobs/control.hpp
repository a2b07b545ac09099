// What people ask of a job: pause, resume, cancel, retry, and the pace while it runs.
#pragma once

#include <cstdint>
#include <string>

#include "core/job_state.hpp"
#include "jobs/settings.hpp"
#include "jobs/store.hpp"

namespace zdm::jobs {

// Finds a job that the current user may see; raises undefined_object otherwise, insufficient_privilege when it may
// see but not control it. Needs an SPI connection; switches identity itself.
JobStatus controlled_job(std::int64_t job_id);
JobStatus visible_job(std::int64_t job_id);

// Does what the call asks and returns the state asked for. Raises object_not_in_prerequisite_state where
// core::asked_state refuses.
std::string control_job(core::ControlCall call, std::int64_t job_id);

void hold_all(bool hold);
void alter_options(std::int64_t job_id, const OptionValues& options);
void require_succeeded(const std::string& name);

// CALL zdm.wait. `atomic`: the procedure runs where it cannot end the transaction.
void wait_for_job(std::int64_t job_id, std::int64_t timeout_ms, bool atomic);

}  // namespace zdm::jobs
