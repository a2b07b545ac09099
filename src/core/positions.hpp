// Promise: tuple identifiers as one line of numbers, in heap order, so that ranges of a relation are
// arithmetic. position = block * positions_per_block + offset. positions_per_block must exceed the largest
// offset (heap: MaxHeapTuplesPerPage + 1; offsets start at 1): offset 0 is then the place before a block's
// first row, and a half-open range [from, to) of positions is ctid >= from AND ctid < to.
#pragma once

#include <charconv>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace zdm::core {

struct Tid {
    std::uint32_t block;
    std::uint16_t offset;
    // Blocks first, then offsets: the order of type tid.
    friend constexpr auto operator<=>(const Tid&, const Tid&) = default;
};

// The largest block of a relation (PostgreSQL's MaxBlockNumber); one more is where the largest relation ends.
inline constexpr std::uint32_t max_block = 0xFFFFFFFEu;

// At most 2^48: sums of positions and batch sizes do not overflow. An offset beyond the block's positions (no
// heap has one) counts as the last of the block.
constexpr std::int64_t to_position(Tid tid, std::int64_t positions_per_block) {
    const std::int64_t offset = tid.offset < positions_per_block ? tid.offset : positions_per_block - 1;
    return std::int64_t{tid.block} * positions_per_block + offset;
}

// The position before the first row of a block; of the number of blocks: where the relation ends.
constexpr std::int64_t block_start(std::uint32_t block, std::int64_t positions_per_block) {
    return std::int64_t{block} * positions_per_block;
}

// The inverse. Below zero is (0,0); beyond the largest relation is its end, (4294967295,0).
constexpr Tid from_position(std::int64_t position, std::int64_t positions_per_block) {
    if (position < 0) {
        return {0, 0};
    }
    const std::int64_t block = position / positions_per_block;
    if (block > std::int64_t{max_block}) {
        return {max_block + 1, 0};
    }
    return {static_cast<std::uint32_t>(block), static_cast<std::uint16_t>(position % positions_per_block)};
}

// "(block,offset)", as type tid prints and reads it.
inline std::string to_text(Tid tid) {
    return "(" + std::to_string(tid.block) + "," + std::to_string(tid.offset) + ")";
}

// The inverse of to_text, without blanks; nullopt when malformed or out of range.
inline std::optional<Tid> parse_tid(std::string_view text) {
    Tid tid{};
    const char* end = text.data() + text.size();
    if (text.size() < 5 || text.front() != '(' || text.back() != ')') {
        return std::nullopt;
    }
    const auto block = std::from_chars(text.data() + 1, end, tid.block);
    if (block.ec != std::errc{} || block.ptr == end || *block.ptr != ',') {
        return std::nullopt;
    }
    const auto offset = std::from_chars(block.ptr + 1, end, tid.offset);
    if (offset.ec != std::errc{} || offset.ptr != end - 1) {
        return std::nullopt;
    }
    return tid;
}

}  // namespace zdm::core
