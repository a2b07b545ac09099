#include "core/batch_sizer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

using namespace zdm::core;

namespace {

constexpr std::int64_t per_block = 292;
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();

// A server where a batch costs an overhead and so much a position, and is cut at batch_time as the engine
// does.
struct Server {
    double overhead_ms;
    double position_ms;
    double batch_time_ms;

    // Runs one batch; the milliseconds it took, cut included.
    double run(BatchSizer& sizer) const {
        const double ms = overhead_ms + position_ms * static_cast<double>(sizer.next());
        // A batch of one position is run to its end: there is nothing smaller.
        if (ms > batch_time_ms && sizer.next() > 1) {
            sizer.timed_out();
            return batch_time_ms;
        }
        sizer.finished(ms, sizer.next());
        return ms;
    }
};

TEST(BatchSizer, StartsAtSixteenBlocks) {
    const BatchSizer sizer(100, per_block);
    EXPECT_EQ(sizer.next(), 16 * per_block);
    EXPECT_EQ(sizer.maximum(), 8192 * per_block);
}

TEST(BatchSizer, SettlesAtTheTargetForAnyConstantCost) {
    for (const double batch_time : {10.0, 100.0, 1000.0, 60'000.0}) {
        for (const double us : {1.0, 3.0, 10.0, 50.0, 200.0, 1000.0, 3000.0, 10'000.0}) {
            BatchSizer sizer(batch_time, per_block);
            const Server server{0.2, us / 1000.0, batch_time};
            for (int batch = 0; batch < 60; ++batch) {
                server.run(sizer);
            }
            for (int batch = 0; batch < 20; ++batch) {
                const bool capped = sizer.next() == sizer.maximum();
                const bool single = sizer.next() == 1;
                const double ms = server.run(sizer);
                EXPECT_TRUE(ms <= batch_time || single) << us << " us, " << batch_time << " ms: " << ms;
                EXPECT_TRUE(ms <= 0.61 * batch_time || single)
                    << us << " us, " << batch_time << " ms: " << ms;
                EXPECT_TRUE(ms >= 0.5 * batch_time || capped || single || us * 2 / 1000.0 > 0.5 * batch_time)
                    << us << " us, " << batch_time << " ms: " << ms;
            }
        }
    }
}

TEST(BatchSizer, SettlesQuickly) {
    for (const double us : {1.0, 10.0, 100.0, 1000.0, 10'000.0}) {
        BatchSizer sizer(100, per_block);
        const Server server{0.2, us / 1000.0, 100};
        int batches = 0;
        double ms = 0;
        int over = 0;
        do {
            ms = server.run(sizer);
            over += ms >= 100 ? 1 : 0;
            ++batches;
        } while ((ms < 50 || ms > 61) && batches < 1000);
        EXPECT_LE(batches, 12) << us;
        EXPECT_LE(over, 5) << us << ": batches cut on the way";
    }
}

TEST(BatchSizer, WithoutATimeoutItStillComesDown) {
    BatchSizer sizer(100, per_block);
    double ms = 0;
    for (int batch = 0; batch < 8; ++batch) {
        ms = 10.0 * static_cast<double>(sizer.next());  // 10 ms a row, the first batch takes 47 s
        sizer.finished(ms, sizer.next());
    }
    EXPECT_LE(ms, 100);
}

// Noise, a change of cost tenfold up and down: what happens after the step is bounded.
TEST(BatchSizer, FollowsACostThatChanges) {
    BatchSizer sizer(100, per_block);
    std::mt19937 random(7);
    std::uniform_real_distribution<double> noise(0.7, 1.3);
    int over = 0;
    double busy = 0;
    constexpr int batches = 3000;
    for (int batch = 0; batch < batches; ++batch) {
        const double cost = (batch / 300) % 2 == 0 ? 0.01 : 0.1;
        const double ms = cost * noise(random) * static_cast<double>(sizer.next());
        if (ms > 100) {
            ++over;
            sizer.timed_out();
        } else {
            busy += ms;
            sizer.finished(ms, sizer.next());
        }
    }
    EXPECT_LE(over, 10 * 2);
    EXPECT_GE(busy / batches, 40) << "batches that are too small waste commits";
}

TEST(BatchSizer, GrowsAtMostTwofoldAtStartUpAndByHalfLater) {
    for (const double share : {0.0, 0.001, 0.1, 0.2, 0.39, 0.41, 0.5, 0.6}) {
        BatchSizer fresh(100, per_block);
        const auto before = fresh.next();
        fresh.finished(share * 100, 1);
        EXPECT_LE(fresh.next(), before * 2) << share;

        BatchSizer settled(100, per_block);
        settled.finished(60, 1);  // near its time: start-up is over
        for (int batch = 0; batch < 30; ++batch) {
            const auto size = settled.next();
            settled.finished(share * 100, 1);
            EXPECT_LE(settled.next(), size + size / 2 + 1) << share;
        }
    }
    BatchSizer sizer(100, per_block);
    sizer.finished(1, 1);
    EXPECT_EQ(sizer.next(), 32 * per_block);
}

TEST(BatchSizer, GrowsByHalfAfterALockOrACut) {
    for (const bool lock : {true, false}) {
        BatchSizer sizer(100, per_block);
        lock ? sizer.blocked() : sizer.timed_out();
        const auto size = sizer.next();
        sizer.finished(1, 1);
        EXPECT_EQ(sizer.next(), size + size / 2);
    }
}

TEST(BatchSizer, ARiseCountsAtOnceAFallByAndBy) {
    BatchSizer sizer(100, per_block);
    sizer.finished(60, 1);
    const auto settled = static_cast<double>(sizer.next());
    sizer.finished(100, 1);
    EXPECT_NEAR(static_cast<double>(sizer.next()), settled * 0.6, 1.0);
    sizer.finished(36, 1);  // the old cost again
    EXPECT_LE(static_cast<double>(sizer.next()), settled * 0.7);
    for (int batch = 0; batch < 30; ++batch) {
        sizer.finished(60.0 * static_cast<double>(sizer.next()) / settled, 1);
    }
    EXPECT_NEAR(static_cast<double>(sizer.next()), settled, settled / 100);
}

TEST(BatchSizer, ShrinksProportionallyAboveTheTarget) {
    for (const double share : {0.7, 0.9, 1.0, 1.5, 3.0, 5.0}) {
        BatchSizer sizer(100, per_block);
        const auto before = static_cast<double>(sizer.next());
        sizer.finished(share * 100, 1);
        EXPECT_NEAR(static_cast<double>(sizer.next()), before * 0.6 / share, 1.0) << share;
    }
}

TEST(BatchSizer, DividesByTenFarOverItsTime) {
    for (const double ms : {501.0, 5000.0, 1e12, 1e308, infinity}) {
        BatchSizer sizer(100, per_block);
        sizer.finished(ms, 1);
        EXPECT_EQ(sizer.next(), 16 * per_block / 10) << ms;
    }
}

TEST(BatchSizer, LongerBatchesNeverMakeTheNextOneLarger) {
    std::int64_t before = huge;
    for (int ms = 0; ms <= 500; ++ms) {
        BatchSizer sizer(100, per_block);
        sizer.finished(ms, 1);
        EXPECT_LE(sizer.next(), before) << ms;
        before = sizer.next();
    }
}

TEST(BatchSizer, TimedOutAndBlocked) {
    BatchSizer sizer(100, per_block);
    sizer.timed_out();
    EXPECT_EQ(sizer.next(), 4 * per_block);
    sizer.blocked();
    EXPECT_EQ(sizer.next(), 4 * per_block / 10);
    for (int i = 0; i < 100; ++i) {
        sizer.blocked();
        EXPECT_GE(sizer.next(), 1);
        sizer.timed_out();
        EXPECT_GE(sizer.next(), 1);
    }
    EXPECT_EQ(sizer.next(), 1);
}

TEST(BatchSizer, ComesBackFromOne) {
    BatchSizer sizer(100, per_block);
    for (int i = 0; i < 10; ++i) {
        sizer.blocked();
    }
    ASSERT_EQ(sizer.next(), 1);
    const Server server{0.2, 0.01, 100};
    for (int batch = 0; batch < 30; ++batch) {
        EXPECT_LE(server.run(sizer), 61);
    }
    EXPECT_GE(sizer.next(), 5000);
}

TEST(BatchSizer, EmptyStretchesStopAtTheMaximum) {
    BatchSizer sizer(100, per_block);
    for (int batch = 0; batch < 200; ++batch) {
        sizer.finished(0, 0);
        EXPECT_LE(sizer.next(), sizer.maximum());
    }
    EXPECT_EQ(sizer.next(), sizer.maximum());
}

// Out of rows already done into rows to do, their cost known from before: one cut batch, not a row of them.
TEST(BatchSizer, RemembersWhatChangedRowsCost) {
    BatchSizer sizer(100, per_block);
    const Server dense{0.2, 0.1, 100};
    for (int batch = 0; batch < 40; ++batch) {
        dense.run(sizer);
    }
    for (int batch = 0; batch < 60; ++batch) {
        sizer.finished(0.5, 0);
    }
    ASSERT_EQ(sizer.next(), sizer.maximum());
    EXPECT_EQ(dense.run(sizer), 100);
    for (int batch = 0; batch < 40; ++batch) {
        EXPECT_LE(dense.run(sizer), 61);
    }
}

// Which batch sizes are tried until the failing position alone is the batch, and how many tries that takes.
int tries_to_isolate(BatchSizer& sizer, std::int64_t bad) {
    std::int64_t cursor = 0;
    for (int tries = 1; tries <= 1000; ++tries) {
        const std::int64_t size = sizer.next();
        if (bad >= cursor && bad < cursor + size) {
            sizer.bisect(size);
            if (size == 1) {
                return tries;
            }
        } else {
            EXPECT_LE(cursor + size, bad) << "never past the failing row";
            cursor += size;
            sizer.finished(1, size);
        }
    }
    return 1001;
}

TEST(BatchSizer, BisectIsolatesAnyRowInLogarithmicTime) {
    for (const std::int64_t blocks_of : {1, 2, 100, 292}) {
        BatchSizer fresh(100, blocks_of);
        for (std::int64_t bad = 0; bad < fresh.next(); ++bad) {
            BatchSizer sizer(100, blocks_of);
            const int tries = tries_to_isolate(sizer, bad);
            EXPECT_LE(tries, 4 + 2 * std::log2(16.0 * static_cast<double>(blocks_of))) << bad;
            EXPECT_EQ(sizer.next(), 1);
        }
    }
}

TEST(BatchSizer, AfterBisectItDoublesWithEachSuccess) {
    BatchSizer sizer(100, per_block);
    sizer.bisect(1);
    EXPECT_EQ(sizer.next(), 1);
    for (std::int64_t size = 1; size < 1024; size *= 2) {
        EXPECT_EQ(sizer.next(), size);
        sizer.finished(1, size);
    }
}

TEST(BatchSizer, BisectHalves) {
    BatchSizer sizer(100, per_block);
    for (std::int64_t size = sizer.next(); size > 1; size = sizer.next()) {
        sizer.bisect(size);
        EXPECT_EQ(sizer.next(), size / 2);
    }
    sizer.bisect(1);
    EXPECT_EQ(sizer.next(), 1);
}

// The failing row is the last of sixteen: each success leaves it in the rest, and half of that comes next.
TEST(BatchSizer, SuccessWithinTheFailedStretchHalvesTheRest) {
    BatchSizer sizer(100, per_block);
    sizer.bisect(16);
    for (const std::int64_t size : {8, 4, 2, 1}) {
        EXPECT_EQ(sizer.next(), size);
        sizer.finished(1, size);
    }
    EXPECT_EQ(sizer.next(), 1);
    sizer.finished(1, 1);  // it did not fail after all: past the stretch
    EXPECT_EQ(sizer.next(), 2);
}

TEST(BatchSizer, BisectNeverGrowsAndTakesAnyNumber) {
    for (const std::int64_t failed : {-huge - 1, std::int64_t{-1}, std::int64_t{0}, std::int64_t{1}}) {
        BatchSizer sizer(100, per_block);
        sizer.bisect(failed);
        EXPECT_EQ(sizer.next(), 1) << failed;
    }
    BatchSizer sizer(100, per_block);
    sizer.bisect(huge);
    EXPECT_LE(sizer.next(), 16 * per_block);
    EXPECT_GE(sizer.next(), 1);
}

// The end of the relation cut the failed batch short.
TEST(BatchSizer, BisectOfAShortBatch) {
    BatchSizer sizer(100, per_block);
    sizer.bisect(10);
    EXPECT_EQ(sizer.next(), 5);
}

TEST(BatchSizer, EveryRowBadStaysAtOne) {
    BatchSizer sizer(100, per_block);
    while (sizer.next() > 1) {
        sizer.bisect(sizer.next());
    }
    for (int row = 0; row < 1000; ++row) {
        sizer.bisect(sizer.next());
        ASSERT_EQ(sizer.next(), 1);
    }
}

TEST(BatchSizer, BisectObeysTheTimeAsWell) {
    BatchSizer sizer(100, per_block);
    sizer.bisect(sizer.next());
    const auto half = sizer.next();
    sizer.timed_out();
    EXPECT_LE(sizer.next(), half / 4);
    const auto quarter = sizer.next();
    sizer.finished(99, 1);
    EXPECT_LE(sizer.next(), quarter);
}

TEST(BatchSizer, StrangeDurationsTeachNothing) {
    for (const double ms : {std::nan(""), -1.0, -1e300, -infinity}) {
        BatchSizer sizer(100, per_block);
        for (int batch = 0; batch < 5; ++batch) {
            sizer.finished(ms, 1);
            EXPECT_EQ(sizer.next(), 16 * per_block) << ms;
        }
        sizer.finished(1, 1);
        EXPECT_EQ(sizer.next(), 32 * per_block) << ms;
    }
}

TEST(BatchSizer, TinyDurationsDoNotOverflow) {
    for (const double ms :
         {0.0, -0.0, std::numeric_limits<double>::denorm_min(), std::numeric_limits<double>::min(), 1e-300}) {
        BatchSizer sizer(100, per_block);
        for (int batch = 0; batch < 50; ++batch) {
            sizer.finished(ms, batch % 3 - 1);
            EXPECT_GE(sizer.next(), 1);
            EXPECT_LE(sizer.next(), sizer.maximum());
        }
        EXPECT_EQ(sizer.next(), sizer.maximum());
    }
}

TEST(BatchSizer, StrangeConstructorArguments) {
    for (const double time : {std::nan(""), 0.0, -5.0, 1e-9, infinity, 1e308}) {
        for (const std::int64_t positions : {std::numeric_limits<std::int64_t>::min(), std::int64_t{0},
                                             std::int64_t{1}, std::int64_t{65536}, huge}) {
            BatchSizer sizer(time, positions);
            EXPECT_GE(sizer.next(), 1);
            EXPECT_LE(sizer.next(), sizer.maximum());
            EXPECT_LE(sizer.maximum(), std::int64_t{8192} * 65536);
            sizer.finished(10, 1);
            EXPECT_GE(sizer.next(), 1);
        }
    }
}

TEST(BatchSizer, ANewBatchTimeIsObeyedAtOnceWhenShorter) {
    BatchSizer sizer(100, per_block);
    const Server slow{0.0, 0.1, 100};
    for (int batch = 0; batch < 40; ++batch) {
        slow.run(sizer);
    }
    sizer.set_batch_time(10);
    const Server quick{0.0, 0.1, 10};
    for (int batch = 0; batch < 20; ++batch) {
        EXPECT_LE(quick.run(sizer), 6.1);
    }
    sizer.set_batch_time(1000);
    const Server patient{0.0, 0.1, 1000};
    double ms = 0;
    for (int batch = 0; batch < 20; ++batch) {
        ms = patient.run(sizer);
        EXPECT_LE(ms, 610);
    }
    EXPECT_GE(ms, 500);
}

TEST(BatchSizer, AStrangeBatchTimeIsIgnored) {
    BatchSizer sizer(100, per_block);
    for (const double time : {std::nan(""), 0.0, -1.0, -infinity}) {
        sizer.set_batch_time(time);
        EXPECT_EQ(sizer.next(), 16 * per_block);
    }
    sizer.finished(120, 1);  // still judged by 100 ms
    EXPECT_EQ(sizer.next(), 16 * per_block / 2);
}

// A relation with failing rows and rows that others hold for a while, walked as the engine does with on_error
// 'skip': every good row is done once, every bad one is found, and the tries stay in proportion to them.
TEST(BatchSizer, WalksARelationWithErrorsAndLocks) {
    for (const int bad_per_10000 : {0, 1, 10, 200, 10'000}) {
        constexpr std::int64_t end = 60'000;
        std::mt19937 random(static_cast<unsigned>(bad_per_10000) + 1);
        std::vector<char> bad(end);
        std::vector<int> locked(end);  // how many tries a lock outlives
        std::int64_t bad_count = 0;
        std::int64_t lock_tries = 0;
        for (std::int64_t at = 0; at < end; ++at) {
            bad[at] = random() % 10'000 < static_cast<unsigned>(bad_per_10000);
            bad_count += bad[at];
            locked[at] = random() % 5'000 == 0 ? 1 + static_cast<int>(random() % 8) : 0;
            lock_tries += locked[at];
        }
        BatchSizer sizer(100, per_block);
        std::vector<char> done(end);
        std::int64_t found = 0;
        std::int64_t tries = 0;
        for (std::int64_t cursor = 0; cursor < end;) {
            ASSERT_LT(++tries, 2'000'000) << "no progress";
            const std::int64_t to = std::min(end, cursor + sizer.next());
            std::int64_t at = cursor;
            while (at < to && !bad[at] && locked[at] == 0) {
                ++at;
            }
            if (at == to) {
                std::fill(done.begin() + cursor, done.begin() + to, 1);
                sizer.finished(0.2 + 0.01 * static_cast<double>(to - cursor), to - cursor);
                cursor = to;
            } else if (locked[at] > 0) {
                --locked[at];
                sizer.blocked();
            } else {
                sizer.bisect(to - cursor);
                if (to - cursor == 1) {
                    ++found;
                    cursor = to;
                }
            }
        }
        EXPECT_EQ(found, bad_count);
        for (std::int64_t at = 0; at < end; ++at) {
            ASSERT_EQ(done[at], !bad[at]) << at;
        }
        EXPECT_LE(tries, 60 + 30 * bad_count + 20 * lock_tries) << bad_per_10000;
    }
}

// Whatever is called in whatever order with whatever values: the size stays within its bounds.
TEST(BatchSizer, StaysWithinBoundsWhateverHappens) {
    std::mt19937_64 random(42);
    const std::vector<double> durations{0,   1e-320, 0.01, 1,        30,        60, 99,
                                        101, 499,    1e6,  infinity, -infinity, -1, std::nan("")};
    const std::vector<std::int64_t> numbers{-huge - 1, -1, 0, 1, 2, 1000, 1'000'000, huge};
    for (int run = 0; run < 200; ++run) {
        BatchSizer sizer(100, 1 + static_cast<std::int64_t>(random() % 400));
        for (int step = 0; step < 500; ++step) {
            const std::int64_t before = sizer.next();
            const double ms = durations[random() % durations.size()];
            const std::int64_t number = numbers[random() % numbers.size()];
            switch (random() % 8) {
                case 0:
                    sizer.timed_out();
                    EXPECT_LE(sizer.next(), std::max<std::int64_t>(1, before / 4));
                    break;
                case 1:
                    sizer.blocked();
                    EXPECT_LE(sizer.next(), std::max<std::int64_t>(1, before / 10));
                    break;
                case 2:
                    sizer.bisect(random() % 2 == 0 ? before : number);
                    EXPECT_LE(sizer.next(), before);
                    break;
                case 3:
                    sizer.set_batch_time(ms);
                    EXPECT_LE(sizer.next(), before);
                    break;
                default:
                    sizer.finished(ms, number);
                    EXPECT_LE(sizer.next(), before * 2);
            }
            ASSERT_GE(sizer.next(), 1);
            ASSERT_LE(sizer.next(), sizer.maximum());
        }
    }
}

}  // namespace
