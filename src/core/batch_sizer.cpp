#include "core/batch_sizer.hpp"

#include <algorithm>
#include <cmath>

namespace zdm::core {

namespace {

constexpr std::int64_t first_blocks = 16;
// 64 MiB: a scan of rows already done stays short, and the step from there into rows to do stays bounded.
constexpr std::int64_t most_blocks = 8192;

// Shares of batch_time (facts/signals.md).
constexpr double target = 0.6;
constexpr double low = 0.4;
constexpr double far_over = 5.0;

constexpr double search_growth = 2.0;
constexpr double growth = 1.5;
constexpr double smoothing = 0.3;

constexpr double shortest_batch_time_ms = 1.0;
constexpr double longest_batch_time_ms = 3'600'000.0;

double sane_batch_time(double ms) {
    // The negation also catches NaN.
    return !(ms >= shortest_batch_time_ms) ? shortest_batch_time_ms : std::min(ms, longest_batch_time_ms);
}

// A rise counts at once, a fall by and by: a batch too long holds the application's rows, one too short costs
// us a commit.
double pessimistic(std::optional<double> known, double seen) {
    return !known || seen >= *known ? seen : *known + smoothing * (seen - *known);
}

}  // namespace

BatchSizer::BatchSizer(double batch_time_ms, std::int64_t positions_per_block)
    : batch_time_(sane_batch_time(batch_time_ms)) {
    const std::int64_t per_block = std::clamp<std::int64_t>(positions_per_block, 1, 65536);
    maximum_ = most_blocks * per_block;
    size_ = first_blocks * per_block;
}

void BatchSizer::resize(double wanted) {
    // Compared as doubles first: a double beyond 64 bits must not be converted.
    if (wanted >= static_cast<double>(maximum_)) {
        size_ = maximum_;
    } else {
        size_ = wanted >= 1.0 ? static_cast<std::int64_t>(wanted) : 1;
    }
}

std::int64_t BatchSizer::affordable(double cost) const {
    if (!(cost > 0)) {
        return maximum_;  // also -0.0, which would divide to minus infinity
    }
    const double positions = target * batch_time_ / cost;
    if (!(positions < static_cast<double>(maximum_))) {
        return maximum_;
    }
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(positions));
}

void BatchSizer::divide(std::int64_t by) {
    size_ = std::max<std::int64_t>(1, size_ / by);
    // What was learnt did not hold; the next batch says anew.
    cost_.reset();
    searching_ = false;
}

void BatchSizer::learn(double ms, std::int64_t rows_changed) {
    const double share = ms / batch_time_;
    if (share > far_over) {
        divide(10);
        return;
    }
    const double cost = ms / static_cast<double>(size_);
    if (rows_changed > 0) {
        change_cost_ = pessimistic(change_cost_, cost);
    }
    const bool doubling = searching_ && share < low;
    if (doubling) {
        cost_ = cost;  // small batches are mostly overhead: what they cost a position is no guide
    } else {
        searching_ = false;
        cost_ = pessimistic(cost_, cost);
    }
    const std::int64_t wanted = affordable(*cost_);
    if (wanted > size_) {
        const double factor = doubling ? search_growth : growth;
        const auto most = static_cast<std::int64_t>(static_cast<double>(size_) * factor);
        size_ = std::min(wanted, std::max(most, size_ + 1));
    } else {
        size_ = wanted;
    }
}

void BatchSizer::finished(double ms, std::int64_t rows_changed) {
    const std::int64_t covered = size_;
    if (ms >= 0) {
        learn(ms, rows_changed);
    }
    if (suspect_ > 0) {
        // The failing row is not among these: it is in the rest of the failed stretch.
        suspect_ = std::max<std::int64_t>(0, suspect_ - covered);
        if (suspect_ > 0) {
            size_ = std::min(size_, std::max<std::int64_t>(1, suspect_ / 2));
        }
    }
}

void BatchSizer::timed_out() {
    divide(4);
    // Out of a stretch with nothing to do into rows to do: what those cost before is known.
    if (change_cost_) {
        size_ = std::min(size_, affordable(*change_cost_));
    }
}

void BatchSizer::blocked() {
    divide(10);
}

void BatchSizer::bisect(std::int64_t failed_positions) {
    suspect_ = failed_positions > 1 ? std::min(failed_positions, maximum_) : 0;
    size_ = std::min(size_, std::max<std::int64_t>(1, suspect_ / 2));
    cost_.reset();
    searching_ = true;
}

void BatchSizer::set_batch_time(double batch_time_ms) {
    if (!(batch_time_ms > 0)) {
        return;
    }
    const double before = batch_time_;
    batch_time_ = sane_batch_time(batch_time_ms);
    if (batch_time_ < before) {
        resize(static_cast<double>(size_) * (batch_time_ / before));
    } else if (batch_time_ > before) {
        searching_ = true;
    }
}

}  // namespace zdm::core
