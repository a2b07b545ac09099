#include "core/backoff.hpp"

#include <climits>
#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

using namespace zdm::core;

namespace {

struct Plan {
    Verdict verdict;
    long first;
    long longest;
};

constexpr Plan plans[] = {{Verdict::retry_lock, 100, 60'000},
                          {Verdict::retry_soon, 20, 10'000},
                          {Verdict::retry_slow, 1'000, 60'000}};

long delay(Verdict verdict, int failures, double jitter = 1.0) {
    return static_cast<long>(backoff_delay(verdict, failures, jitter).count());
}

TEST(Backoff, DoublesFromTheFirstToTheLongest) {
    for (const Plan& plan : plans) {
        long expected = plan.first;
        for (int failures = 1; failures <= 40; ++failures) {
            EXPECT_EQ(delay(plan.verdict, failures), expected) << failures;
            expected = std::min(expected * 2, plan.longest);
        }
    }
}

TEST(Backoff, NeverOverflowsForAnyCount) {
    for (const Plan& plan : plans) {
        for (const int failures : {INT_MIN, INT_MIN + 1, -1000, -1, 0, 1}) {
            EXPECT_EQ(delay(plan.verdict, failures), plan.first) << failures;
        }
        for (const int failures : {31, 32, 33, 63, 64, 65, 1000, INT_MAX - 1, INT_MAX}) {
            EXPECT_EQ(delay(plan.verdict, failures), plan.longest) << failures;
        }
    }
}

TEST(Backoff, JitterStaysWithinHalfAndFull) {
    for (const Plan& plan : plans) {
        for (int failures = -1; failures < 30; ++failures) {
            const long full = delay(plan.verdict, failures);
            long before = 0;
            for (int step = 0; step <= 20; ++step) {
                const long now = delay(plan.verdict, failures, step / 20.0);
                EXPECT_GE(now, full / 2);
                EXPECT_LE(now, full);
                EXPECT_GE(now, before) << "more jitter, longer delay";
                before = now;
            }
            EXPECT_EQ(delay(plan.verdict, failures, 0.0), full / 2);
        }
    }
}

TEST(Backoff, JitterOutOfRangeIsClamped) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    for (const Plan& plan : plans) {
        EXPECT_EQ(delay(plan.verdict, 1, 2.0), plan.first);
        EXPECT_EQ(delay(plan.verdict, 1, infinity), plan.first);
        EXPECT_EQ(delay(plan.verdict, 1, -3.0), plan.first / 2);
        EXPECT_EQ(delay(plan.verdict, 1, -infinity), plan.first / 2);
        EXPECT_EQ(delay(plan.verdict, 1, std::nan("")), plan.first / 2);
    }
}

TEST(Backoff, GrowsMonotonically) {
    for (const Plan& plan : plans) {
        for (int failures = 0; failures < 100; ++failures) {
            EXPECT_LE(delay(plan.verdict, failures, 0.3), delay(plan.verdict, failures + 1, 0.3));
        }
    }
}

TEST(Backoff, WhatIsNotRetriedDoesNotWait) {
    for (const int failures : {INT_MIN, 0, 1, 20, INT_MAX}) {
        EXPECT_EQ(delay(Verdict::bad_row, failures), 0);
        EXPECT_EQ(delay(Verdict::permanent, failures), 0);
    }
}

TEST(GiveUp, LocksNever) {
    for (const int failures : {INT_MIN, 0, 1, 20, 21, 1000000, INT_MAX}) {
        EXPECT_FALSE(give_up(Verdict::retry_lock, failures));
    }
}

TEST(GiveUp, OthersAfterTwentyInARow) {
    for (const Verdict verdict : {Verdict::retry_soon, Verdict::retry_slow}) {
        EXPECT_FALSE(give_up(verdict, INT_MIN));
        for (int failures = -1; failures < 20; ++failures) {
            EXPECT_FALSE(give_up(verdict, failures)) << failures;
        }
        for (const int failures : {20, 21, 1000, INT_MAX}) {
            EXPECT_TRUE(give_up(verdict, failures)) << failures;
        }
    }
}

TEST(GiveUp, TheIncurableAtOnce) {
    for (const int failures : {INT_MIN, 0, 1, 20, INT_MAX}) {
        EXPECT_TRUE(give_up(Verdict::bad_row, failures));
        EXPECT_TRUE(give_up(Verdict::permanent, failures));
    }
}

// A server out of disk or in recovery gets some minutes before the job fails.
TEST(GiveUp, SlowTroubleIsGivenMinutes) {
    long least = 0;
    for (int failures = 1; !give_up(Verdict::retry_slow, failures); ++failures) {
        least += delay(Verdict::retry_slow, failures, 0.0);
    }
    EXPECT_GE(least, 5 * 60'000);
}

TEST(GiveUp, FiveInterruptions) {
    EXPECT_EQ(max_interruptions, 5);
}

}  // namespace
