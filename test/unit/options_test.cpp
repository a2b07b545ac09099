#include "core/options.hpp"

#include <limits>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

using namespace zdm::core;

namespace {

constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

std::string error_of(std::string_view name, std::string_view value) {
    const Option* option = find_option(name);
    return option == nullptr ? "no such option" : check_option(*option, value).value_or("");
}

TEST(Options, AreThoseOfTheDocumentationInItsOrder) {
    std::vector<std::string_view> names;
    for (const Option& option : options()) {
        names.push_back(option.name);
    }
    EXPECT_EQ(names, (std::vector<std::string_view>{"workers", "batch_time", "max_replica_lag",
                                                    "max_wal_rate", "max_rows_per_second", "throttle_query",
                                                    "time_window", "vacuum", "on_error"}));
}

TEST(Options, EveryDeclarationIsSound) {
    std::set<std::string_view> names;
    for (const Option& option : options()) {
        EXPECT_TRUE(names.insert(option.name).second) << option.name;
        EXPECT_EQ(find_option(option.name), &option);
        EXPECT_FALSE(option.help.empty()) << option.name;
        EXPECT_LE(option.min, option.max) << option.name;
        EXPECT_EQ(option.kind == Kind::word, !option.words.empty()) << option.name;
        EXPECT_EQ(check_option(option, option.boot_value), std::nullopt) << option.name;
        EXPECT_TRUE(is_default(option, option.boot_value)) << option.name;
    }
}

TEST(Options, WhatIsAvailable) {
    std::set<std::string_view> available;
    for (const Option& option : options()) {
        if (option.available) {
            available.insert(option.name);
        }
    }
    EXPECT_EQ(available, (std::set<std::string_view>{"batch_time", "on_error"}));
}

TEST(Options, FindIsExact) {
    for (const char* name : {"", "worker", "workers ", "Workers", "batch_times"}) {
        EXPECT_EQ(find_option(name), nullptr) << name;
    }
}

// At each bound and one beyond, for whatever is a number.
TEST(Options, BoundsOfEveryNumber) {
    for (const Option& option : options()) {
        if (option.kind != Kind::integer && option.kind != Kind::interval && option.kind != Kind::bigint) {
            continue;
        }
        EXPECT_FALSE(check_option(option, std::to_string(option.min))) << option.name;
        EXPECT_FALSE(check_option(option, std::to_string(option.max))) << option.name;
        EXPECT_TRUE(check_option(option, std::to_string(option.min - 1))) << option.name;
        EXPECT_TRUE(check_option(option, "-9223372036854775808")) << option.name;
        if (option.max < most) {
            EXPECT_TRUE(check_option(option, std::to_string(option.max + 1))) << option.name;
        }
        for (const char* value : {"", " ", "abc", "1.5", "1e3", "1 ms", "0x1", "9223372036854775808", "1 ",
                                  " 1", "nan", "infinity"}) {
            EXPECT_TRUE(check_option(option, value)) << option.name << " " << value;
        }
    }
}

TEST(Options, ErrorsNameTheOptionWhatIsAllowedAndTheValue) {
    EXPECT_EQ(error_of("batch_time", "0"), "batch_time must be between 1 ms and 60000 ms, not 0 ms");
    EXPECT_EQ(error_of("batch_time", "soon"), "batch_time must be between 1 ms and 60000 ms, not soon");
    EXPECT_EQ(error_of("workers", "1025"), "workers must be between 1 and 1024, not 1025");
    EXPECT_EQ(error_of("max_rows_per_second", "-1"), "max_rows_per_second must be 0 or more, not -1");
    EXPECT_EQ(error_of("vacuum", "yes"), "vacuum must be on or off, not yes");
    EXPECT_EQ(error_of("vacuum", ""), "vacuum must be on or off, not empty");
    EXPECT_EQ(error_of("on_error", "ignore"), "on_error must be fail or skip, not ignore");
    EXPECT_EQ(error_of("max_wal_rate", "fast"),
              "max_wal_rate must be an amount of bytes such as 0, 512kB, 50MB or 1GB, not fast");
}

TEST(Options, ValuesAreNotFormatStrings) {
    EXPECT_EQ(error_of("on_error", "{}%s"), "on_error must be fail or skip, not {}%s");
}

TEST(Options, Words) {
    EXPECT_EQ(error_of("on_error", "fail"), "");
    EXPECT_EQ(error_of("on_error", "skip"), "");
    for (const char* value : {"", "Fail", "fail,skip", "ski", "skip ", ","}) {
        EXPECT_NE(error_of("on_error", value), "") << value;
    }
}

TEST(Options, ThreeWordsReadAsAList) {
    const Option option{"mode", Kind::word, "a", 0, 0, "help", true, "a,b,c"};
    EXPECT_EQ(check_option(option, "d"), "mode must be a, b or c, not d");
    const Option single{"mode", Kind::word, "a", 0, 0, "help", true, "a"};
    EXPECT_EQ(check_option(single, "d"), "mode must be a, not d");
}

TEST(Options, TextTakesAnything) {
    for (const char* value : {"", "SELECT true", "22:00-05:00 Europe/Berlin", "'"}) {
        EXPECT_EQ(error_of("throttle_query", value), "");
        EXPECT_EQ(error_of("time_window", value), "");
    }
}

TEST(Options, Bytes) {
    EXPECT_EQ(parse_bytes("0"), 0);
    EXPECT_EQ(parse_bytes("4096"), 4096);
    EXPECT_EQ(parse_bytes("7B"), 7);
    EXPECT_EQ(parse_bytes("7 bytes"), 7);
    EXPECT_EQ(parse_bytes("512kB"), 512 * 1024);
    EXPECT_EQ(parse_bytes("50MB"), 50 * 1024 * 1024);
    EXPECT_EQ(parse_bytes(" 50 mb "), 50 * 1024 * 1024);
    EXPECT_EQ(parse_bytes("1.5 GB"), 1536LL * 1024 * 1024);
    EXPECT_EQ(parse_bytes("2TB"), 2LL << 40);
    EXPECT_EQ(parse_bytes("1PB"), 1LL << 50);
    EXPECT_EQ(parse_bytes("9223372036854775807"), most);
    EXPECT_EQ(parse_bytes("8191PB"), 8191LL << 50);
    for (const char* text : {"",
                             " ",
                             "MB",
                             "-1",
                             "-1MB",
                             "+1",
                             "1,5MB",
                             "1.2.3",
                             ".",
                             "1e3",
                             "nan",
                             "inf",
                             "50 Mb/s",
                             "50MiB",
                             "1 0",
                             "8192PB",
                             "8192.0PB",
                             "9223372036854775808",
                             "99999999999999999999999",
                             "99999999999999999999999.5"}) {
        EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
    }
}

TEST(Options, DefaultsAreComparedByMeaning) {
    const Option& rate = *find_option("max_wal_rate");
    EXPECT_TRUE(is_default(rate, "0"));
    EXPECT_TRUE(is_default(rate, "0 MB"));
    EXPECT_FALSE(is_default(rate, "1"));
    EXPECT_FALSE(is_default(rate, "rubbish"));
    const Option& time = *find_option("batch_time");
    EXPECT_TRUE(is_default(time, "100"));
    EXPECT_TRUE(is_default(time, "0100"));
    EXPECT_FALSE(is_default(time, "101"));
    EXPECT_FALSE(is_default(time, ""));
    EXPECT_TRUE(is_default(*find_option("vacuum"), "off"));
    EXPECT_FALSE(is_default(*find_option("vacuum"), "on"));
    EXPECT_TRUE(is_default(*find_option("throttle_query"), ""));
    EXPECT_FALSE(is_default(*find_option("throttle_query"), "SELECT 1"));
    EXPECT_TRUE(is_default(*find_option("workers"), "1"));
    EXPECT_FALSE(is_default(*find_option("workers"), "2"));
}

}  // namespace
