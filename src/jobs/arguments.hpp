// Decoding SQL arguments into C++ values, once for every enqueuing function.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "jobs/enqueue.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

// Reads one argument by its place; nullopt for NULL.
std::optional<std::string> text_argument(FunctionCallInfo fcinfo, int place);
std::optional<std::int64_t> bigint_argument(FunctionCallInfo fcinfo, int place);

// As above, but NULL is an error that names the argument.
std::string required_text(FunctionCallInfo fcinfo, int place, const char* name);
std::int64_t required_bigint(FunctionCallInfo fcinfo, int place, const char* name);
Oid required_relation(FunctionCallInfo fcinfo, int place, const char* name);

// An interval in whole milliseconds, at least 1 unless it is zero. Months are refused: they have no length.
std::int64_t interval_ms(const Interval* interval, const char* name);

// Options of pace as consecutive arguments from `place` on, in the order of core::options(); NULLs are left out.
OptionValues option_arguments(FunctionCallInfo fcinfo, int place);

std::vector<std::int64_t> bigint_array_argument(FunctionCallInfo fcinfo, int place, const char* name);

}  // namespace zdm::jobs
