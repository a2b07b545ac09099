// What a user gives to zdm.start_backfill(relation, set_clause, where_clause): checked with the server's own
// parser, and the statements made of it. Runs as the job's user, under the caller's search_path; raises
// before anything is written. Every refusal names the object, has its SQLSTATE and a hint.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

// The user's text.
struct Clauses {
    std::string set;
    std::optional<std::string> where;
};

// remove: DELETE; the SET list is empty, which tells it from an update, and the WHERE clause is required.
enum class Action { update, remove };

struct Compiled {
    Oid relation = InvalidOid;  // as given: the root
    std::string relation_name;  // quoted, schema-qualified
    std::string alias;          // quoted name under which user expressions see the table: the root's relname
    std::string predicate;      // rows that still need it: derived, or the user's WHERE; in parentheses
    bool derived = false;       // predicate was derived from the SET list
    std::string set;            // the user's SET list, checked; empty for remove
    std::vector<std::string> assigned_columns;  // as in the catalog, not quoted, in order of assignment
    std::string statement;                      // readable: UPDATE public.users SET ... WHERE ...
};

// Raises unless batches can be run on the relation by the current role: an ordinary or partitioned heap
// table, neither temporary nor a catalog nor ours, whose row-level security hides nothing, without rules and
// without statement-level triggers that would not fire. 42809: not a kind of table that rows can be changed
// in. 0A000: a table, but one that this cannot do right.
void check_relation(Oid relation);

// The tables that hold the rows: the relation itself (first, unless partitioned) and everything below it, by
// OID.
std::vector<Oid> leaves(Oid relation);

// Parses, checks and compiles; check_relation() included. Errors of the server keep their SQLSTATE.
Compiled compile(Oid relation, const Clauses& clauses, Action action = Action::update);

// One batch on one leaf; $1 (inclusive) and $2 (exclusive) are tid. UPDATE returns one boolean a row changed:
// true when the row still matches after its update. DELETE returns nothing.
std::string batch_statement(const Compiled& compiled, Oid leaf);

// The last look over all leaves in one statement: (tableoid, ctid) of the rows that still match.
std::string look_statement(const Compiled& compiled);

// Lets the server plan and start, not run, the batch statement of every leaf and the look, so that every
// privilege is checked, those of sub-selects included. 42501 with the relation's name. Needs no SPI
// connection of the caller.
void check_privileges(const Compiled& compiled);

std::string quoted_name(Oid relation);  // schema-qualified, quoted

}  // namespace zdm::backfill
