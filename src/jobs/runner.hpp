// The runner process: main function of the background workers that do the jobs.
#pragma once

namespace zdm::jobs {

// Connects as told in bgw_extra, does jobs until none is left, returns. Raises on what it cannot handle: the
// postmaster starts the worker again after a second.
void runner_main();

}  // namespace zdm::jobs
