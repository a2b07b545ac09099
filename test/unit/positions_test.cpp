#include "core/positions.hpp"

#include <limits>
#include <random>
#include <string>

#include <gtest/gtest.h>

using namespace zdm::core;

namespace {

constexpr std::int64_t heap = 292;  // MaxHeapTuplesPerPage + 1 at 8 kB

static_assert(to_position({0, 0}, heap) == 0);
static_assert(to_position({0, 1}, heap) == 1);
static_assert(to_position({1, 0}, heap) == heap);
static_assert(from_position(heap + 5, heap) == Tid{1, 5});

constexpr std::uint32_t blocks[] = {0, 1, 2, 1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFD, max_block};

TEST(Positions, RoundTrip) {
    for (const std::int64_t per_block : {std::int64_t{2}, heap, std::int64_t{2048}, std::int64_t{65536}}) {
        for (const std::uint32_t block : blocks) {
            for (const std::int64_t offset :
                 {std::int64_t{0}, std::int64_t{1}, per_block / 2, per_block - 1}) {
                const Tid tid{block, static_cast<std::uint16_t>(offset)};
                EXPECT_EQ(from_position(to_position(tid, per_block), per_block), tid)
                    << to_text(tid) << " at " << per_block;
            }
        }
    }
}

TEST(Positions, KeepTheOrderOfTids) {
    std::mt19937 random(1);
    std::uniform_int_distribution<std::uint32_t> any_block(0, max_block);
    std::uniform_int_distribution<int> any_offset(0, heap - 1);
    for (int round = 0; round < 20'000; ++round) {
        // Half the pairs in one block, where the offset decides.
        const Tid left{any_block(random), static_cast<std::uint16_t>(any_offset(random))};
        const Tid right{round % 2 == 0 ? left.block : any_block(random),
                        static_cast<std::uint16_t>(any_offset(random))};
        EXPECT_EQ(left <=> right, to_position(left, heap) <=> to_position(right, heap));
    }
}

TEST(Positions, NeighboursAcrossABlockBoundaryAreOneApart) {
    for (const std::uint32_t block : blocks) {
        const std::int64_t last = to_position({block, heap - 1}, heap);
        EXPECT_EQ(last + 1, block_start(block + 1, heap)) << block;
    }
}

TEST(Positions, TheLargestBlockDoesNotOverflow) {
    const std::int64_t top = to_position({max_block, 0xFFFF}, 65536);
    EXPECT_GT(top, 0);
    EXPECT_LT(top, std::int64_t{1} << 48);
    EXPECT_EQ(from_position(top, 65536), (Tid{0xFFFFFFFE, 0xFFFF}));
}

TEST(Positions, BeyondTheLargestRelationIsItsEnd) {
    const Tid end{0xFFFFFFFF, 0};
    EXPECT_EQ(from_position(block_start(0xFFFFFFFF, heap), heap), end);
    EXPECT_EQ(from_position(block_start(0xFFFFFFFF, heap) + 17, heap), end);
    EXPECT_EQ(from_position(std::numeric_limits<std::int64_t>::max(), heap), end);
    EXPECT_EQ(from_position(block_start(0xFFFFFFFF, heap) - 1, heap), (Tid{max_block, heap - 1}));
}

TEST(Positions, BelowZeroIsTheStart) {
    EXPECT_EQ(from_position(-1, heap), (Tid{0, 0}));
    EXPECT_EQ(from_position(std::numeric_limits<std::int64_t>::min(), heap), (Tid{0, 0}));
}

TEST(Positions, AnOffsetTooLargeStaysInItsBlock) {
    EXPECT_EQ(to_position({7, 0xFFFF}, heap), block_start(8, heap) - 1);
}

TEST(Positions, TextRoundTrip) {
    EXPECT_EQ(to_text({0, 1}), "(0,1)");
    EXPECT_EQ(to_text({0xFFFFFFFF, 0xFFFF}), "(4294967295,65535)");
    for (const std::uint32_t block : blocks) {
        for (const std::uint16_t offset : {0, 1, 291, 65535}) {
            const Tid tid{block, offset};
            EXPECT_EQ(parse_tid(to_text(tid)), tid);
        }
    }
}

TEST(Positions, ParseRefusesWhatIsNoTid) {
    for (const char* text :
         {"",          "(",      "()",     "(,)",    "(1)",     "(1,)",    "(,1)",
          "1,2",       "(1,2",   "1,2)",   "(1,2))", "((1,2)",  "(-1,2)",  "(1,-2)",
          "(+1,2)",    "( 1,2)", "(1, 2)", "(1,2 )", "(1,2,3)", "(1.0,2)", "(4294967296,1)",
          "(1,65536)", "(a,b)",  "(1,2) "}) {
        EXPECT_FALSE(parse_tid(text)) << text;
    }
}

}  // namespace
