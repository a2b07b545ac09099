#include "core/sqlstate.hpp"

namespace zdm::core {

namespace {

struct Rule {
    std::string_view prefix;
    Verdict verdict;
};

// The first prefix that fits decides: the most specific come first.
constexpr Rule rules[] = {
    // Somebody holds what we want. 57014 is a statement cut by statement_timeout while it waited or ran;
    // whoever
    // was cancelled by a request of ours knows that before asking here.
    {"55P03", Verdict::retry_lock},  // lock_not_available: lock_timeout, NOWAIT
    {"57014", Verdict::retry_lock},  // query_canceled

    // We lost a race by the rules; nothing is wrong with the data.
    {"40001", Verdict::retry_soon},  // serialization_failure
    {"40P01", Verdict::retry_soon},  // deadlock_detected

    // The server or the machine is in trouble, or not in a state to write; a human or time will mend it.
    {"25006", Verdict::retry_slow},  // read_only_sql_transaction: a standby, or read-only by default for now
    {"55006", Verdict::retry_slow},  // object_in_use
    {"57P", Verdict::retry_slow},  // shutdown, crash of another process, cannot connect now, database dropped
    {"08", Verdict::retry_slow},   // connection exception (dblink and foreign tables in triggers)
    {"53", Verdict::retry_slow},   // insufficient resources: disk full, out of memory, too many connections
    {"58", Verdict::retry_slow},   // system error: input and output, files

    // The statement or our own state is wrong, for every row alike (42: see the header).
    {"42", Verdict::permanent},  // syntax, missing or ambiguous objects, wrong types, privileges
    {"XX", Verdict::permanent},  // internal error, corrupted data or index: stop and let a human look
    {"ZD", Verdict::permanent},  // our own: already a conclusion

    // Raised for the values of a row, by a constraint, or by code that a row's triggers run.
    {"09", Verdict::bad_row},  // triggered action exception
    {"0P", Verdict::bad_row},  // invalid role specification (SET ROLE in a trigger)
    {"21", Verdict::bad_row},  // cardinality violation: a subquery gives several rows for this one
    {"22", Verdict::bad_row},  // data exception: division by zero, out of range, invalid text
    {"23", Verdict::bad_row},  // integrity constraint violation
    {"24", Verdict::bad_row},  // invalid cursor state (trigger code)
    {"27", Verdict::bad_row},  // triggered data change violation: a trigger changed the row itself
    {"2F", Verdict::bad_row},  // SQL routine exception
    {"38", Verdict::bad_row},  // external routine exception
    {"39", Verdict::bad_row},  // external routine invocation exception
    {"44", Verdict::bad_row},  // WITH CHECK OPTION violation
    {"P0", Verdict::bad_row},  // PL/pgSQL: RAISE EXCEPTION, no data found, assertion
};

}  // namespace

Verdict classify(std::string_view sqlstate) {
    if (sqlstate.size() != 5) {
        return Verdict::permanent;
    }
    for (const Rule& rule : rules) {
        if (sqlstate.starts_with(rule.prefix)) {
            return rule.verdict;
        }
    }
    // A user may raise any code for a row (RAISE ... USING ERRCODE): let bisection decide.
    return Verdict::bad_row;
}

}  // namespace zdm::core
