// The parts that clause.cpp is made of; for the files clause*.cpp alone.
#pragma once

#include <string>
#include <vector>

#include "backfill/clause.hpp"

namespace zdm::backfill::parts {

// --- clause_check.cpp: the relation and everything below it --------------------------------------

// check_relation() for one of the two actions.
void check_relation(Oid relation, Action action);

// Refuses columns that decide which partition a row is in, of the relation, what is above it and what is
// below it.
void check_partition_keys(Oid relation, const std::vector<std::string>& columns);

// SET column = DEFAULT means the named table's default in an UPDATE, and the leaf's in a batch: refuses when
// they differ.
void check_defaults(Oid relation, const std::vector<std::string>& columns);

// An expression that reads the whole row sees the leaf's columns in a batch: refuses when they differ.
void check_row_types(Oid relation);

// --- clause_derive.cpp: what an analyzed UPDATE says about itself -----------------------------------

struct Assignment {
    std::string column;
    bool is_default = false;  // SET column = DEFAULT
};
std::vector<Assignment> assignments(const Query* query);

// Things an expression should not do when its rows must be seen to be done. nullptr: it does not.
struct Findings {
    const char* volatile_call = nullptr;  // name of a volatile function
    const char* time_call = nullptr;      // name of something that differs from one transaction to the next
    const char* system_column = nullptr;  // a column of the row's header that an update changes
    bool whole_row = false;               // reads the row of the relation as one value
};
// `node` is a part of an analyzed or rewritten query whose target is range table entry 1.
Findings examine(Node* node);

// Does the raw statement expand the relation's columns (`users.*`, or `*` outside a sub-select)?
bool expands_row(Node* raw, const char* relname);

// "any assigned column IS DISTINCT FROM its expression". `query` is analyzed, not rewritten.
// Raises feature_not_supported where no such condition can be made.
std::string derive(const Query* query, Oid relation, const std::string& alias);

inline constexpr const char* hint_give_where =
    "Give where_clause: a condition that is true for rows that still need the change and false after it.";

}  // namespace zdm::backfill::parts
