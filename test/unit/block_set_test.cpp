#include "core/block_set.hpp"

#include <random>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

using namespace zdm::core;

namespace {

using Stretch = std::pair<std::uint32_t, std::uint32_t>;

std::vector<Stretch> runs_of(const BlockSet& set) {
    std::vector<Stretch> runs;
    for (auto run = set.next_run(0); run; run = set.next_run(run->second + 1)) {
        runs.push_back(*run);
    }
    return runs;
}

TEST(BlockSet, StartsEmpty) {
    const BlockSet set;
    EXPECT_TRUE(set.empty());
    EXPECT_EQ(set.count(), 0u);
    EXPECT_EQ(set.memory(), 0u);
    EXPECT_FALSE(set.contains(0));
    EXPECT_FALSE(set.contains(0xFFFFFFFE));
    EXPECT_FALSE(set.next(0));
    EXPECT_FALSE(set.next_run(0));
    EXPECT_FALSE(set.next_run(0xFFFFFFFF));
}

TEST(BlockSet, CountsEachBlockOnce) {
    BlockSet set;
    EXPECT_TRUE(set.add(5));
    EXPECT_FALSE(set.add(5));
    EXPECT_TRUE(set.add(4));
    EXPECT_EQ(set.count(), 2u);
    EXPECT_TRUE(set.contains(5));
    EXPECT_FALSE(set.contains(6));
    EXPECT_FALSE(set.contains(5 + 64));
}

TEST(BlockSet, NextFindsMembersInOrderAndIncludesFrom) {
    BlockSet set;
    for (const std::uint32_t block : {700u, 0u, 63u, 64u}) {
        set.add(block);
    }
    EXPECT_EQ(set.next(0), 0u);
    EXPECT_EQ(set.next(1), 63u);
    EXPECT_EQ(set.next(63), 63u);
    EXPECT_EQ(set.next(64), 64u);
    EXPECT_EQ(set.next(65), 700u);
    EXPECT_EQ(set.next(700), 700u);
    EXPECT_FALSE(set.next(701));
    EXPECT_FALSE(set.next(100'000));
}

TEST(BlockSet, RunsAcrossWordBoundaries) {
    BlockSet set;
    for (std::uint32_t block = 60; block <= 200; ++block) {
        set.add(block);
    }
    set.add(202);
    EXPECT_EQ(runs_of(set), (std::vector<Stretch>{{60, 200}, {202, 202}}));
    EXPECT_EQ(set.next_run(100), (Stretch{100, 200}));
    EXPECT_EQ(set.next_run(200), (Stretch{200, 200}));
    EXPECT_EQ(set.next_run(201), (Stretch{202, 202}));
    EXPECT_FALSE(set.next_run(203));
}

TEST(BlockSet, RunsThatEndWithTheBitmap) {
    BlockSet set;
    for (std::uint32_t block = 0; block < 128; ++block) {
        set.add(block);
    }
    EXPECT_EQ(runs_of(set), (std::vector<Stretch>{{0, 127}}));
    EXPECT_EQ(set.next_run(127), (Stretch{127, 127}));
    EXPECT_FALSE(set.next_run(128));
}

TEST(BlockSet, TheLargestBlocks) {
    BlockSet set;
    set.add(0xFFFFFFFD);
    set.add(0xFFFFFFFE);
    EXPECT_EQ(set.next(1), 0xFFFFFFFDu);
    EXPECT_EQ(runs_of(set), (std::vector<Stretch>{{0xFFFFFFFD, 0xFFFFFFFE}}));
    EXPECT_FALSE(set.next(0xFFFFFFFF));
    // The whole line, one past the largest block included, still makes a run that fits.
    set.add(0xFFFFFFFF);
    EXPECT_EQ(set.next_run(0), (Stretch{0xFFFFFFFD, 0xFFFFFFFF}));
}

TEST(BlockSet, ClearForgetsAndGivesMemoryBack) {
    BlockSet set;
    set.add(1'000'000);
    EXPECT_GE(set.memory(), 1'000'000u / 8);
    set.clear();
    EXPECT_TRUE(set.empty());
    EXPECT_EQ(set.memory(), 0u);
    EXPECT_FALSE(set.contains(1'000'000));
    EXPECT_FALSE(set.next(0));
    EXPECT_TRUE(set.add(3));
    EXPECT_EQ(runs_of(set), (std::vector<Stretch>{{3, 3}}));
}

TEST(BlockSet, MemoryIsABitABlock) {
    BlockSet set;
    for (std::uint32_t block = 0; block < 1'000'000; ++block) {
        set.add(block);
    }
    EXPECT_GE(set.memory(), 1'000'000u / 8);
    EXPECT_LE(set.memory(), 2 * 1'000'000u / 8 + 64);
}

// Against std::set, sparse and dense.
TEST(BlockSet, AgreesWithAModel) {
    for (const std::uint32_t range : {70u, 500u, 5'000u, 200'000u}) {
        std::mt19937 random(range);
        std::uniform_int_distribution<std::uint32_t> any(0, range);
        BlockSet set;
        std::set<std::uint32_t> model;
        for (int round = 0; round < 400; ++round) {
            const std::uint32_t block = any(random);
            EXPECT_EQ(set.add(block), model.insert(block).second);
            const std::uint32_t from = any(random);
            const auto found = model.lower_bound(from);
            EXPECT_EQ(set.next(from), found == model.end() ? std::nullopt : std::optional{*found});
            EXPECT_EQ(set.contains(from), model.contains(from));
        }
        EXPECT_EQ(set.count(), model.size());
        std::set<std::uint32_t> walked;
        std::optional<std::uint32_t> before;
        for (const auto& [first, last] : runs_of(set)) {
            ASSERT_LE(first, last);
            EXPECT_TRUE(!before || first > *before + 1) << "runs do not touch";
            before = last;
            for (std::uint32_t block = first; block <= last; ++block) {
                walked.insert(block);
            }
        }
        EXPECT_EQ(walked, model);
    }
}

}  // namespace
