#include "core/backoff.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

namespace zdm::core {

namespace {

struct Schedule {
    std::int64_t first_ms;
    std::int64_t longest_ms;
};

std::optional<Schedule> schedule(Verdict verdict) {
    switch (verdict) {
        case Verdict::retry_lock:
            return Schedule{100, 60'000};
        case Verdict::retry_soon:
            return Schedule{20, 10'000};
        case Verdict::retry_slow:
            return Schedule{1'000, 60'000};
        case Verdict::bad_row:
        case Verdict::permanent:
            break;
    }
    return std::nullopt;
}

}  // namespace

std::chrono::milliseconds backoff_delay(Verdict verdict, int consecutive_failures, double jitter01) {
    const auto plan = schedule(verdict);
    if (!plan) {
        return std::chrono::milliseconds{0};
    }
    std::int64_t full = plan->first_ms;
    // Stops at the longest delay: a dozen rounds whatever the count.
    for (int failure = 1; failure < consecutive_failures && full < plan->longest_ms; ++failure) {
        full *= 2;
    }
    full = std::min(full, plan->longest_ms);
    const double jitter = std::isnan(jitter01) ? 0.0 : std::clamp(jitter01, 0.0, 1.0);
    const double delay = static_cast<double>(full) * (0.5 + 0.5 * jitter);
    return std::chrono::milliseconds{static_cast<std::int64_t>(delay)};
}

bool give_up(Verdict verdict, int consecutive_failures) {
    switch (verdict) {
        case Verdict::retry_lock:
            return false;
        case Verdict::retry_soon:
        case Verdict::retry_slow:
            return consecutive_failures >= max_consecutive_failures;
        case Verdict::bad_row:
        case Verdict::permanent:
            break;
    }
    return true;
}

}  // namespace zdm::core
