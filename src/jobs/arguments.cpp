#include "jobs/arguments.hpp"

#include <fmt/format.h>

#include "core/options.hpp"
#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

namespace {

[[noreturn]] void refuse_null(const char* name) {
    throw pg::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, fmt::format("{} must not be NULL", name))
        .hint(fmt::format("Give a value for {}.", name));
}

}  // namespace

std::optional<std::string> text_argument(FunctionCallInfo fcinfo, int place) {
    if (PG_ARGISNULL(place)) {
        return std::nullopt;
    }
    const char* raw = pg::guard([&] { return text_to_cstring(PG_GETARG_TEXT_PP(place)); });
    return std::string(raw);
}

std::optional<std::int64_t> bigint_argument(FunctionCallInfo fcinfo, int place) {
    if (PG_ARGISNULL(place)) {
        return std::nullopt;
    }
    return PG_GETARG_INT64(place);
}

std::string required_text(FunctionCallInfo fcinfo, int place, const char* name) {
    auto value = text_argument(fcinfo, place);
    if (!value) {
        refuse_null(name);
    }
    return *value;
}

std::int64_t required_bigint(FunctionCallInfo fcinfo, int place, const char* name) {
    if (PG_ARGISNULL(place)) {
        refuse_null(name);
    }
    return PG_GETARG_INT64(place);
}

Oid required_relation(FunctionCallInfo fcinfo, int place, const char* name) {
    if (PG_ARGISNULL(place)) {
        refuse_null(name);
    }
    return PG_GETARG_OID(place);
}

std::int64_t interval_ms(const Interval* interval, const char* name) {
    constexpr std::int64_t day_us = 86'400'000'000;
    if (interval->month != 0 || interval->day > 100'000 || interval->day < -100'000 ||
        interval->time > day_us * 100'000 || interval->time < -day_us * 100'000) {
        throw pg::Error(ERRCODE_INVALID_PARAMETER_VALUE, fmt::format("{} must be a time span of days or less", name))
            .hint("Write it like '100 ms', '5 s' or '10 min'.");
    }
    std::int64_t const us = interval->time + interval->day * day_us;
    return us > 0 && us < 1000 ? 1 : us / 1000;
}

OptionValues option_arguments(FunctionCallInfo fcinfo, int place) {
    using core::Kind;
    OptionValues values;
    for (const core::Option& option : core::options()) {
        int const here = place++;
        if (PG_ARGISNULL(here)) {
            continue;
        }
        std::string value;
        switch (option.kind) {
            case Kind::integer:
                value = fmt::format("{}", PG_GETARG_INT32(here));
                break;
            case Kind::bigint:
                value = fmt::format("{}", PG_GETARG_INT64(here));
                break;
            case Kind::interval:
                value = fmt::format("{}", interval_ms(PG_GETARG_INTERVAL_P(here), std::string(option.name).c_str()));
                break;
            case Kind::boolean:
                value = PG_GETARG_BOOL(here) ? "on" : "off";
                break;
            case Kind::text:
            case Kind::bytes_text:
            case Kind::word:
                value = *text_argument(fcinfo, here);
                break;
        }
        values.emplace_back(option.name, value);
    }
    check_options(values);
    return values;
}

std::vector<std::int64_t> bigint_array_argument(FunctionCallInfo fcinfo, int place, const char* name) {
    std::vector<std::int64_t> result;
    if (PG_ARGISNULL(place)) {
        return result;
    }
    struct Elements {
        Datum* values;
        bool* nulls;
        int count;
    };
    Elements const elements = pg::guard([&] {
        Elements e{};
        deconstruct_array(PG_GETARG_ARRAYTYPE_P(place), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &e.values,
                          &e.nulls, &e.count);
        return e;
    });
    for (int i = 0; i < elements.count; ++i) {
        if (elements.nulls[i]) {
            throw pg::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, fmt::format("{} must not contain NULL", name))
                .hint("Give the ids of jobs, for example ARRAY[12, 13].");
        }
        result.push_back(DatumGetInt64(elements.values[i]));
    }
    return result;
}

}  // namespace zdm::jobs
