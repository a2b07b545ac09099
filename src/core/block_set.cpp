#include "core/block_set.hpp"

#include <bit>

namespace zdm::core {

namespace {

constexpr std::uint64_t bits = 64;

}  // namespace

bool BlockSet::add(std::uint32_t block) {
    const std::size_t word = block / bits;
    const std::uint64_t bit = std::uint64_t{1} << (block % bits);
    if (word >= words_.size()) {
        words_.resize(word + 1);  // grows at least twofold: adding in order stays linear
    }
    if ((words_[word] & bit) != 0) {
        return false;
    }
    words_[word] |= bit;
    ++count_;
    return true;
}

bool BlockSet::contains(std::uint32_t block) const {
    const std::size_t word = block / bits;
    return word < words_.size() && ((words_[word] >> (block % bits)) & 1) != 0;
}

std::optional<std::uint32_t> BlockSet::next(std::uint32_t from) const {
    std::size_t word = from / bits;
    if (word >= words_.size()) {
        return std::nullopt;
    }
    std::uint64_t rest = words_[word] & (~std::uint64_t{0} << (from % bits));
    while (rest == 0) {
        if (++word == words_.size()) {
            return std::nullopt;
        }
        rest = words_[word];
    }
    return static_cast<std::uint32_t>(word * bits + static_cast<std::uint64_t>(std::countr_zero(rest)));
}

std::optional<std::pair<std::uint32_t, std::uint32_t>> BlockSet::next_run(std::uint32_t from) const {
    const auto first = next(from);
    if (!first) {
        return std::nullopt;
    }
    // The first block that is missing, found among the inverted words.
    std::size_t word = *first / bits;
    std::uint64_t missing = ~words_[word] & (~std::uint64_t{0} << (*first % bits));
    while (missing == 0 && ++word < words_.size()) {
        missing = ~words_[word];
    }
    const std::uint64_t end = missing == 0
                                  ? words_.size() * bits
                                  : word * bits + static_cast<std::uint64_t>(std::countr_zero(missing));
    return std::pair{*first, static_cast<std::uint32_t>(end - 1)};
}

void BlockSet::clear() {
    std::vector<std::uint64_t>().swap(words_);  // assigning {} would keep the memory
    count_ = 0;
}

}  // namespace zdm::core
