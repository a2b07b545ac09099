// Promise: an option of pace is declared once, here; arguments, settings, alter_job and the catalog read it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace zdm::core {

// Canonical text of a value: what the catalog keeps and the functions below take.
enum class Kind {
    integer,     // decimal digits, 32 bits
    interval,    // whole milliseconds as decimal digits
    bytes_text,  // an amount of bytes as users write it: '0', '50MB', '1.5 GB'
    bigint,      // decimal digits, 64 bits
    text,        // anything
    boolean,     // on or off
    word,        // one of `words`
};

struct Option {
    std::string_view name;
    Kind kind;
    std::string_view boot_value;  // canonical text
    std::int64_t min;             // integer, interval (ms), bytes_text (bytes), bigint; 0 for the others
    std::int64_t max;
    std::string_view help;
    bool available;          // false: declared, but only its default is accepted yet
    std::string_view words;  // Kind::word: what is allowed, separated by commas
};

// All options, in the order of the documentation. Static storage.
std::span<const Option> options();

// nullptr when there is no option of that name (exact match).
const Option* find_option(std::string_view name);

// The error text when the canonical value is malformed or out of bounds, naming what is allowed; nullopt when
// it is fine. Does not look at `available`: the caller refuses `!available && !is_default(...)`.
std::optional<std::string> check_option(const Option& option, std::string_view value);

// Whether the value means the same as boot_value ('0 MB' is '0').
bool is_default(const Option& option, std::string_view value);

// Bytes from '50MB', '1.5 GB', '4096': units B, bytes, kB, MB, GB, TB, PB, in powers of 1024 and any case, as
// pg_size_bytes() takes them. nullopt when malformed, negative or beyond 64 bits.
std::optional<std::int64_t> parse_bytes(std::string_view text);

}  // namespace zdm::core
