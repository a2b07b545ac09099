#include "core/sqlstate.hpp"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "core/failure.hpp"

using namespace zdm::core;

namespace {

struct Expected {
    const char* code;
    Verdict verdict;
};

const Expected expectations[] = {
    {"55P03", Verdict::retry_lock},
    {"57014", Verdict::retry_lock},
    {"40001", Verdict::retry_soon},
    {"40P01", Verdict::retry_soon},
    {"25006", Verdict::retry_slow},
    {"55006", Verdict::retry_slow},
    {"57P01", Verdict::retry_slow},
    {"57P02", Verdict::retry_slow},
    {"57P03", Verdict::retry_slow},
    {"57P04", Verdict::retry_slow},
    {"57P05", Verdict::retry_slow},
    {"08000", Verdict::retry_slow},
    {"08006", Verdict::retry_slow},
    {"53000", Verdict::retry_slow},
    {"53100", Verdict::retry_slow},
    {"53200", Verdict::retry_slow},
    {"53300", Verdict::retry_slow},
    {"58000", Verdict::retry_slow},
    {"58030", Verdict::retry_slow},
    {"42501", Verdict::permanent},
    {"42601", Verdict::permanent},
    {"42703", Verdict::permanent},
    {"42P01", Verdict::permanent},
    {"XX000", Verdict::permanent},
    {"XX001", Verdict::permanent},
    {"XX002", Verdict::permanent},
    {"22012", Verdict::bad_row},
    {"22003", Verdict::bad_row},
    {"22P02", Verdict::bad_row},
    {"23502", Verdict::bad_row},
    {"23503", Verdict::bad_row},
    {"23505", Verdict::bad_row},
    {"23514", Verdict::bad_row},
    {"23P01", Verdict::bad_row},
    {"44000", Verdict::bad_row},
    {"P0001", Verdict::bad_row},
    {"P0002", Verdict::bad_row},
    {"P0004", Verdict::bad_row},
    {"38000", Verdict::bad_row},
    {"39P01", Verdict::bad_row},
    {"2F000", Verdict::bad_row},
    {"21000", Verdict::bad_row},
    {"27000", Verdict::bad_row},
    {"09000", Verdict::bad_row},
    {"24000", Verdict::bad_row},
    {"0P000", Verdict::bad_row},
    // Neighbours of specific codes do not inherit their verdict.
    {"40002", Verdict::bad_row},
    {"55000", Verdict::bad_row},
    {"25P02", Verdict::bad_row},
    {"57000", Verdict::bad_row},
    // A user's own code, and a class nobody has yet.
    {"U0001", Verdict::bad_row},
    {"ABCDE", Verdict::bad_row},
};

TEST(Sqlstate, EveryGroupHasItsVerdict) {
    for (const auto& [code, verdict] : expectations) {
        EXPECT_EQ(classify(code), verdict) << code;
    }
}

TEST(Sqlstate, OwnCodesArePermanentUniqueAndOfClassZd) {
    std::set<std::string_view> codes;
    std::set<std::string_view> names;
    for (const auto& own : sqlstate::own_codes) {
        EXPECT_EQ(own.code.size(), 5u);
        EXPECT_TRUE(own.code.starts_with("ZD")) << own.code;
        EXPECT_EQ(classify(own.code), Verdict::permanent) << own.code;
        EXPECT_FALSE(own.meaning.empty());
        EXPECT_TRUE(codes.insert(own.code).second) << own.code;
        EXPECT_TRUE(names.insert(own.name).second) << own.name;
    }
    EXPECT_EQ(codes.size(), 8u);
}

TEST(Sqlstate, OwnCodesKeepTheirNumbers) {
    EXPECT_EQ(sqlstate::job_failed_dependency, "ZD001");
    EXPECT_EQ(sqlstate::not_converging, "ZD002");
    EXPECT_EQ(sqlstate::rows_remain, "ZD003");
    EXPECT_EQ(sqlstate::crashed_repeatedly, "ZD004");
    EXPECT_EQ(sqlstate::job_cancelled, "ZD005");
    EXPECT_EQ(sqlstate::job_not_succeeded, "ZD006");
    EXPECT_EQ(sqlstate::lost_job, "ZD007");
    EXPECT_EQ(sqlstate::wait_timeout, "ZD008");
}

TEST(Sqlstate, WhatIsNoSqlstateIsPermanent) {
    for (const char* code : {"", "2", "22", "2201", "220120", "40001 ", "57P"}) {
        EXPECT_EQ(classify(code), Verdict::permanent) << '"' << code << '"';
    }
}

TEST(Sqlstate, ReadsNothingBeyondTheView) {
    const std::string buffer = "4000199";
    EXPECT_EQ(classify(std::string_view(buffer).substr(0, 5)), Verdict::retry_soon);
}

TEST(Failure, IsPlainDataThatStartsEmpty) {
    const Failure failure{};
    EXPECT_TRUE(failure.sqlstate.empty() && failure.message.empty() && failure.detail.empty() &&
                failure.hint.empty() && failure.context.empty());
}

}  // namespace
