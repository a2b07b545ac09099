// Promise: a set of block numbers that costs one bit a block up to the largest member, and is walked in
// order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace zdm::core {

class BlockSet {
  public:
    // True when the block is new. Grows the bitmap up to the block (512 MB for the largest block number);
    // throws std::bad_alloc, and has not changed then.
    bool add(std::uint32_t block);

    bool contains(std::uint32_t block) const;

    // The number of members.
    std::uint64_t count() const { return count_; }
    bool empty() const { return count_ == 0; }

    // The first member >= from; nullopt when there is none.
    std::optional<std::uint32_t> next(std::uint32_t from) const;

    // The first run of consecutive members [first, last], both inclusive, with first >= from (a run that
    // begins before from is cut there). The next one begins after last + 1.
    std::optional<std::pair<std::uint32_t, std::uint32_t>> next_run(std::uint32_t from) const;

    // Forgets all and gives the memory back.
    void clear();

    // Bytes held on the heap.
    std::size_t memory() const { return words_.capacity() * sizeof(std::uint64_t); }

  private:
    std::vector<std::uint64_t> words_;
    std::uint64_t count_ = 0;
};

}  // namespace zdm::core
