#include "jobs/settings.hpp"

#include <climits>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "core/options.hpp"
#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

namespace {

bool enabled_value = true;
int max_workers_value = 4;
int lock_timeout_value = 500;
int job_retention_value = 30 * 24 * 3600;
int name_retention_value = 730 * 24 * 3600;

// Storage for the options of pace, by their place in the table.
constexpr int max_options = 16;
int int_values[max_options];
bool bool_values[max_options];
char* text_values[max_options];

int small_number(std::string_view text) {
    int n = 0;
    std::from_chars(text.data(), text.data() + text.size(), n);
    return n;
}

// Settings that are kept as text are checked by the same table that checks arguments.
template <int index>
bool check_text(char** value, void**, GucSource) {
    std::string problem;
    try {
        auto const found = core::check_option(core::options()[index], *value == nullptr ? "" : *value);
        if (!found) {
            return true;
        }
        problem = *found;
    } catch (...) {
        problem = "the value could not be checked";
    }
    GUC_check_errdetail("%s", problem.c_str());
    return false;
}

// The server keeps the pointers to names and helps for the life of the process.
const char* keep(const std::string& text) {
    const char* raw = text.c_str();
    return pg::guard([&] { return MemoryContextStrdup(TopMemoryContext, raw); });
}

template <int index>
void define_option() {
    using core::Kind;
    if (index >= static_cast<int>(core::options().size())) {
        return;
    }
    const core::Option& option = core::options()[index];
    const char* name = keep(fmt::format("zdm.{}", option.name));
    const char* help = keep(std::string(option.help));
    const char* boot = keep(std::string(option.boot_value));
    int const number = small_number(option.boot_value);
    int const low = static_cast<int>(option.min);
    int const high = option.max > INT_MAX ? INT_MAX : static_cast<int>(option.max);
    bool const on = option.boot_value == "on";
    pg::guard([&] {
        switch (option.kind) {
            case Kind::integer:
            case Kind::interval:
                DefineCustomIntVariable(name, help, nullptr, &int_values[index], number, low, high, PGC_USERSET,
                                        option.kind == Kind::interval ? GUC_UNIT_MS : 0, nullptr, nullptr, nullptr);
                break;
            case Kind::boolean:
                DefineCustomBoolVariable(name, help, nullptr, &bool_values[index], on, PGC_USERSET, 0, nullptr,
                                         nullptr, nullptr);
                break;
            case Kind::bytes_text:
            case Kind::bigint:
            case Kind::text:
            case Kind::word:
                DefineCustomStringVariable(name, help, nullptr, &text_values[index], boot, PGC_USERSET, 0,
                                           check_text<index>, nullptr, nullptr);
                break;
        }
    });
}

template <int... index>
void define_options(std::integer_sequence<int, index...>) {
    (define_option<index>(), ...);
}

}  // namespace

void define_settings() {
    pg::guard([] {
        DefineCustomBoolVariable("zdm.enabled", "Lets jobs run; off holds every job of the server.",
                                 "The kill switch: set it in postgresql.conf, or by ALTER SYSTEM in a session that has "
                                 "done LOAD 'zdm_ext', and reload.",
                                 &enabled_value, true, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
        DefineCustomIntVariable("zdm.max_workers", "Most worker processes in one database.", nullptr,
                                &max_workers_value, 4, 1, 1024, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
        DefineCustomIntVariable("zdm.lock_timeout", "Longest wait for a lock on a table.", nullptr,
                                &lock_timeout_value, 500, 1, 60000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr,
                                nullptr);
        DefineCustomIntVariable("zdm.job_retention", "How long ended jobs stay in zdm.jobs.", nullptr,
                                &job_retention_value, 30 * 24 * 3600, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, nullptr,
                                nullptr, nullptr);
        DefineCustomIntVariable("zdm.name_retention", "How long names of succeeded jobs are remembered.", nullptr,
                                &name_retention_value, 730 * 24 * 3600, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, nullptr,
                                nullptr, nullptr);
    });
    define_options(std::make_integer_sequence<int, max_options>{});
    pg::guard([] { MarkGUCPrefixReserved("zdm"); });
}

bool enabled() { return enabled_value; }
int max_workers() { return max_workers_value; }
int lock_timeout_ms() { return lock_timeout_value; }
int job_retention_s() { return job_retention_value; }
int name_retention_s() { return name_retention_value; }

OptionValues captured_options() {
    OptionValues values;
    for (const core::Option& option : core::options()) {
        std::string const name = fmt::format("zdm.{}", option.name);
        const char* raw = name.c_str();
        const char* value = pg::guard([&] { return GetConfigOption(raw, false, false); });
        values.emplace_back(option.name, value == nullptr ? "" : value);
    }
    return values;
}

}  // namespace zdm::jobs
