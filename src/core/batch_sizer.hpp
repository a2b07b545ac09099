// Promise: chooses how many line pointers (positions, see positions.hpp) the next batch covers, so that a
// batch takes about 60 % of batch_time, and more than batch_time only where that cannot be helped. What it
// learns is the cost of a position: quickly when it rises, slowly (EWMA) when it falls. What a batch costs
// however small it is (begin, commit) cannot be told apart from that: above 60 % of batch_time it brings
// batches down to 1.
#pragma once

#include <cstdint>
#include <optional>

namespace zdm::core {

class BatchSizer {
  public:
    // batch_time_ms: milliseconds, at least 1 (less, or NaN, counts as 1). positions_per_block: 1 to 65536.
    BatchSizer(double batch_time_ms, std::int64_t positions_per_block);

    // The size of the next batch in positions, 1 to maximum(). Changes only through the calls below, each of
    // which speaks of a batch of this size.
    std::int64_t next() const { return size_; }
    std::int64_t maximum() const { return maximum_; }

    // The batch committed after ms milliseconds. NaN and negative durations (a clock set back) teach nothing.
    void finished(double ms, std::int64_t rows_changed);

    // The batch was cut at batch_time: at most a quarter next, less where the known cost of changed rows says
    // so.
    void timed_out();

    // The batch met a row that somebody else holds: a tenth next, so that the rows before it commit.
    void blocked();

    // The batch of so many positions failed on a row: halve. While it succeeds within the failed stretch the
    // rest of that is halved (a binary search: log2 steps to a batch of 1, the row); past it the size doubles
    // with each success, until batches take their time again.
    void bisect(std::int64_t failed_positions);

    // Takes effect with the next batch; a shorter time shrinks it at once. NaN and values <= 0 are ignored.
    void set_batch_time(double batch_time_ms);

  private:
    void learn(double ms, std::int64_t rows_changed);
    void divide(std::int64_t by);
    void resize(double wanted);
    std::int64_t affordable(double cost) const;

    double batch_time_;
    std::int64_t maximum_;
    std::int64_t size_;
    bool searching_ = true;              // no batch has come near its time yet: sizes may double
    std::int64_t suspect_ = 0;           // positions ahead known to contain a failing row
    std::optional<double> cost_;         // ms a position, pessimistic
    std::optional<double> change_cost_;  // the same, of batches that changed rows
};

}  // namespace zdm::core
