#include "core/options.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include <fmt/format.h>

namespace zdm::core {

namespace {

constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

// name, kind, boot value, min, max, help, available, words
constexpr Option table[] = {
    {"workers", Kind::integer, "1", 1, 1024, "Processes that work on the job.", false, {}},
    {"batch_time", Kind::interval, "100", 1, 60'000, "Longest time a batch holds its row locks.", true, {}},
    {"max_replica_lag",
     Kind::interval,
     "0",
     0,
     86'400'000,
     "The job holds while a connected standby is further behind; 0 = off.",
     false,
     {}},
    {"max_wal_rate",
     Kind::bytes_text,
     "0",
     0,
     most,
     "Bytes of WAL a second written by the job; 0 = off.",
     false,
     {}},
    {"max_rows_per_second", Kind::bigint, "0", 0, most, "Rows changed a second; 0 = off.", false, {}},
    {"throttle_query",
     Kind::text,
     "",
     0,
     0,
     "A query, run as the job's role; while it gives true, NULL or an error the job holds.",
     false,
     {}},
    {"time_window",
     Kind::text,
     "",
     0,
     0,
     "When the job may work, as '22:00-05:00 Europe/Berlin'; outside it holds.",
     false,
     {}},
    {"vacuum", Kind::boolean, "off", 0, 0, "VACUUM between batches when dead rows pile up.", false, {}},
    {"on_error", Kind::word, "fail", 0, 0,
     "What a failing row does: fail stops the job, skip records the row and goes on.", true, "fail,skip"},
};

std::optional<std::int64_t> parse_integer(std::string_view text) {
    std::int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (text.empty() || error != std::errc{} || stop != end) {
        return std::nullopt;
    }
    return value;
}

// ASCII alone: the server's locale must not matter.
constexpr char lower(char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
}

bool same_letters(std::string_view left, std::string_view right) {
    return std::ranges::equal(left, right, {}, lower, lower);
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && text.front() == ' ') {
        text.remove_prefix(1);
    }
    while (!text.empty() && text.back() == ' ') {
        text.remove_suffix(1);
    }
    return text;
}

// Calls f with each word of a list separated by commas until it returns true; whether it did.
template <typename F>
bool any_word(std::string_view words, F f) {
    while (!words.empty()) {
        const auto comma = words.find(',');
        if (f(words.substr(0, comma))) {
            return true;
        }
        words = comma == std::string_view::npos ? std::string_view{} : words.substr(comma + 1);
    }
    return false;
}

// "fail or skip", "a, b or c"
std::string choices(std::string_view words) {
    std::string text;
    any_word(words, [&](std::string_view word) {
        const bool last = word.data() + word.size() == words.data() + words.size();
        if (!text.empty()) {
            text += last ? " or " : ", ";
        }
        text += word;
        return false;
    });
    return text;
}

std::string allowed_numbers(const Option& option, std::string_view unit) {
    if (option.max == most) {
        return fmt::format("{}{} or more", option.min, unit);
    }
    return fmt::format("between {}{} and {}{}", option.min, unit, option.max, unit);
}

std::optional<std::string> check_number(const Option& option, std::string_view value,
                                        std::optional<std::int64_t> number, std::string_view unit) {
    if (number && *number >= option.min && *number <= option.max) {
        return std::nullopt;
    }
    // The unit only follows a number: "not 0 ms", but "not abc".
    return fmt::format("{} must be {}, not {}{}", option.name, allowed_numbers(option, unit),
                       value.empty() ? "empty" : value, number ? unit : "");
}

}  // namespace

std::span<const Option> options() {
    return table;
}

const Option* find_option(std::string_view name) {
    for (const Option& option : table) {
        if (option.name == name) {
            return &option;
        }
    }
    return nullptr;
}

std::optional<std::int64_t> parse_bytes(std::string_view text) {
    struct Unit {
        std::string_view name;
        int power;
    };
    static constexpr Unit units[] = {{"", 0},    {"B", 0},   {"bytes", 0}, {"kB", 10},
                                     {"MB", 20}, {"GB", 30}, {"TB", 40},   {"PB", 50}};
    text = trimmed(text);
    const auto number_end = std::min(text.find_first_not_of("0123456789."), text.size());
    const std::string_view digits = text.substr(0, number_end);
    const std::string_view name = trimmed(text.substr(number_end));
    for (const Unit& unit : units) {
        if (!same_letters(unit.name, name)) {
            continue;
        }
        const std::int64_t factor = std::int64_t{1} << unit.power;
        if (digits.find('.') == std::string_view::npos) {
            // Whole numbers exactly.
            const auto whole = parse_integer(digits);
            return whole && *whole <= most / factor ? std::optional{*whole * factor} : std::nullopt;
        }
        double amount = 0;
        const char* end = digits.data() + digits.size();
        const auto [stop, error] = std::from_chars(digits.data(), end, amount, std::chars_format::fixed);
        amount *= static_cast<double>(factor);
        // 2^63 itself is the first double that does not fit.
        if (error != std::errc{} || stop != end || !(amount < 9223372036854775808.0)) {
            return std::nullopt;
        }
        return static_cast<std::int64_t>(amount);
    }
    return std::nullopt;
}

std::optional<std::string> check_option(const Option& option, std::string_view value) {
    switch (option.kind) {
        case Kind::integer:
        case Kind::bigint:
            return check_number(option, value, parse_integer(value), "");
        case Kind::interval:
            return check_number(option, value, parse_integer(value), " ms");
        case Kind::bytes_text: {
            const auto bytes = parse_bytes(value);
            if (bytes && *bytes >= option.min && *bytes <= option.max) {
                return std::nullopt;
            }
            return fmt::format("{} must be an amount of bytes such as 0, 512kB, 50MB or 1GB, not {}",
                               option.name, value.empty() ? "empty" : value);
        }
        case Kind::text:
            return std::nullopt;
        case Kind::boolean:
            if (value == "on" || value == "off") {
                return std::nullopt;
            }
            return fmt::format("{} must be on or off, not {}", option.name, value.empty() ? "empty" : value);
        case Kind::word:
            if (any_word(option.words, [&](std::string_view word) { return word == value; })) {
                return std::nullopt;
            }
            return fmt::format("{} must be {}, not {}", option.name, choices(option.words),
                               value.empty() ? "empty" : value);
    }
    return fmt::format("{} has no kind", option.name);
}

bool is_default(const Option& option, std::string_view value) {
    switch (option.kind) {
        case Kind::integer:
        case Kind::interval:
        case Kind::bigint: {
            const auto number = parse_integer(value);
            return number && number == parse_integer(option.boot_value);
        }
        case Kind::bytes_text: {
            const auto bytes = parse_bytes(value);
            return bytes && bytes == parse_bytes(option.boot_value);
        }
        case Kind::text:
        case Kind::boolean:
        case Kind::word:
            break;
    }
    return value == option.boot_value;
}

}  // namespace zdm::core
