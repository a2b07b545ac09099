// Promise: how long to wait after a failure, and when to stop trying. Pure arithmetic: no clock, no
// randomness.
#pragma once

#include <chrono>

#include "core/sqlstate.hpp"

namespace zdm::core {

// A job that takes its process down five times without progress is stopped: it would crash the server for
// ever.
inline constexpr int max_interruptions = 5;

// The failures in a row after which retry_soon and retry_slow give up.
inline constexpr int max_consecutive_failures = 20;

// The delay before the next try. consecutive_failures: 1 after the first failure (less counts as 1).
// jitter01: a random number in [0, 1] (clamped, NaN counts as 0) that spreads the delay over [half, full], so
// that jobs that failed together do not come back together. Zero for verdicts that are not retried.
std::chrono::milliseconds backoff_delay(Verdict verdict, int consecutive_failures, double jitter01);

// Whether to stop trying. A lock is waited for for ever; an error that a retry cannot cure is given up at
// once.
bool give_up(Verdict verdict, int consecutive_failures);

}  // namespace zdm::core
