#include "pg/transaction.hpp"

#include <charconv>
#include <exception>
#include <unordered_map>

#include <fmt/format.h>

#include "pg/postgres.hpp"

namespace zdm::pg {

Transaction::Transaction() {
    GetUserIdAndSecContext(&user_, &security_context_);
    guard([] {
        SetCurrentStatementStartTimestamp();  // now(): nobody else sets it in a worker
        StartTransactionCommand();
        XactIsoLevel = XACT_READ_COMMITTED;
        XactReadOnly = false;
        XactDeferrable = false;
        PushActiveSnapshot(GetTransactionSnapshot());  // SPI wants one around it, as a query's portal has
    });
}

Transaction::~Transaction() {
    if (open_) {
        // An error while aborting leaves nothing to rely on; the server's own loop would recurse and PANIC.
        try {
            guard([] {
                HOLD_INTERRUPTS();
                AbortCurrentTransaction();
                RESUME_INTERRUPTS();
            });
        } catch (...) {
            proc_exit(1);
        }
        SetUserIdAndSecContext(user_, security_context_);
    }
}

void Transaction::commit() {
    guard([] {
        PopActiveSnapshot();
        CommitTransactionCommand();
    });
    open_ = false;
}

Spi::Spi(int options) : exceptions_(std::uncaught_exceptions()) {
    guard([&] {
        if (SPI_connect_ext(options) != SPI_OK_CONNECT) {
            elog(ERROR, "SPI_connect failed");
        }
    });
}

Spi::~Spi() {
    if (std::uncaught_exceptions() == exceptions_) {
        SPI_finish();
    }
}

Text text(double d) { return fmt::format("{:.17g}", d); }

std::int64_t as_int(const Text& value) {
    std::int64_t n = 0;
    if (value) {
        std::from_chars(value->data(), value->data() + value->size(), n);
    }
    return n;
}

double as_double(const Text& value) { return value ? std::strtod(value->c_str(), nullptr) : 0.0; }
bool as_bool(const Text& value) { return value && !value->empty() && (*value)[0] == 't'; }
Oid as_oid(const Text& value) { return static_cast<Oid>(as_int(value)); }
std::string as_string(const Text& value) { return value.value_or(""); }

namespace {

constexpr int max_parameters = 24;

void check_parameters(const std::vector<Text>& parameters) {
    if (parameters.size() > max_parameters) {
        throw Error(ERRCODE_TOO_MANY_ARGUMENTS,
                    fmt::format("a statement takes at most {} parameters", max_parameters));
    }
}

// Plans by statement text. Made on first use: a library has no static constructors.
std::unordered_map<std::string, SPIPlanPtr>& plans() {
    static auto* map = new std::unordered_map<std::string, SPIPlanPtr>;
    return *map;
}

SPIPlanPtr prepare(const char* sql, int count, bool keep) {
    return guard([&] {
        Oid types[max_parameters];
        for (int i = 0; i < count; ++i) {
            types[i] = TEXTOID;
        }
        SPIPlanPtr plan = SPI_prepare(sql, count, types);
        if (plan == nullptr) {
            elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
        }
        if (keep) {
            SPI_keepplan(plan);
        }
        return plan;
    });
}

Rows execute(SPIPlanPtr plan, const std::vector<Text>& parameters) {
    // Pointers only inside the guard; strings are built outside it.
    const char* raw[max_parameters] = {};
    int const count = static_cast<int>(parameters.size());
    for (int i = 0; i < count; ++i) {
        raw[i] = parameters[static_cast<std::size_t>(i)] ? parameters[static_cast<std::size_t>(i)]->c_str() : nullptr;
    }
    SPITupleTable* table = guard([&] {
        Datum values[max_parameters];
        char nulls[max_parameters + 1];
        for (int i = 0; i < count; ++i) {
            nulls[i] = raw[i] == nullptr ? 'n' : ' ';
            values[i] = raw[i] == nullptr ? Datum(0) : CStringGetTextDatum(raw[i]);
        }
        int const code = SPI_execute_plan(plan, values, nulls, false, 0);
        if (code < 0) {
            elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(code));
        }
        return SPI_tuptable;
    });
    Rows result;
    result.processed = SPI_processed;
    if (table == nullptr) {
        return result;
    }
    int const columns = table->tupdesc->natts;
    result.rows.reserve(table->numvals);
    for (std::uint64_t r = 0; r < table->numvals; ++r) {
        auto& row = result.rows.emplace_back();
        row.reserve(static_cast<std::size_t>(columns));
        for (int c = 1; c <= columns; ++c) {
            char* value = guard([&] { return SPI_getvalue(table->vals[r], table->tupdesc, c); });
            row.emplace_back(value == nullptr ? Text{} : Text{value});
        }
    }
    SPI_freetuptable(table);
    return result;
}

}  // namespace

Rows query(std::string_view sql, const std::vector<Text>& parameters) {
    check_parameters(parameters);
    std::string key(sql);
    auto found = plans().find(key);
    if (found == plans().end()) {
        SPIPlanPtr plan = prepare(key.c_str(), static_cast<int>(parameters.size()), true);
        found = plans().emplace(std::move(key), plan).first;
    }
    return execute(found->second, parameters);
}

Rows query(std::string_view sql, std::initializer_list<Text> parameters) {
    return query(sql, std::vector<Text>(parameters));
}

Rows query_once(const std::string& sql, const std::vector<Text>& parameters) {
    check_parameters(parameters);
    SPIPlanPtr plan = prepare(sql.c_str(), static_cast<int>(parameters.size()), false);
    Rows result = execute(plan, parameters);
    SPI_freeplan(plan);
    return result;
}

}  // namespace zdm::pg
