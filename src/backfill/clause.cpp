#include "backfill/clause.hpp"

#include <algorithm>
#include <exception>
#include <iterator>

#include <fmt/format.h>

#include "backfill/clause_parts.hpp"
#include "pg/memory.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

namespace {

// What an error of the server is about.
struct Subject {
    const char* argument;   // set_clause, where_clause
    std::string_view text;  // what the user wrote
    const Compiled& compiled;
};

std::string quoted_text(const Subject& subject) {
    constexpr int longest = 500;
    int const length = static_cast<int>(subject.text.size());
    int const shown = pg_mbcliplen(subject.text.data(), length, longest);
    return fmt::format("{}: {}{}", subject.argument, subject.text.substr(0, static_cast<std::size_t>(shown)),
                       shown < length ? "..." : "");
}

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view space = " \t\r\n\f\v";
    std::size_t const first = text.find_first_not_of(space);
    return first == std::string_view::npos ? std::string_view{}
                                           : text.substr(first, text.find_last_not_of(space) - first + 1);
}

// --- errors of the server, said in the user's terms --------------------------------------------------

// Errors that the text causes. All others (cancelled, out of memory, deadlock) pass as they are.
bool caused_by_text(std::string_view sqlstate) {
    static constexpr std::string_view classes[] = {"0A", "22", "23", "2F", "38",
                                                   "39", "3F", "42", "54", "P0"};
    return std::find(std::begin(classes), std::end(classes), sqlstate.substr(0, 2)) != std::end(classes);
}

std::string hint_for(std::string_view sqlstate, const Subject& subject) {
    const Compiled& compiled = subject.compiled;
    if (sqlstate == "42601") {
        return fmt::format(
            "set_clause is what stands after SET in an UPDATE, where_clause what stands after WHERE. Try "
            "them in EXPLAIN UPDATE {} SET ... WHERE ...",
            compiled.relation_name);
    }
    if (sqlstate == "42703") {
        return fmt::format(
            "Check the spelling. A column is assigned by its plain name, and read as column or "
            "{}.column.",
            compiled.alias);
    }
    if (sqlstate == "42P01") {
        return fmt::format(
            "Check the spelling and search_path. The table itself is known as {}, without a schema.",
            compiled.alias);
    }
    if (sqlstate == "0A000") {
        return "Give expressions that have one value a row; other rows and tables are read in a sub-select.";
    }
    if (sqlstate == "42883" || sqlstate == "42704" || sqlstate == "3F000") {
        return "Check the spelling and search_path, or name it with its schema.";
    }
    if (sqlstate == "428C9") {
        return "The server computes this column: leave it out of set_clause.";
    }
    if (sqlstate == "42P02") {
        return "Write values as literals: the clauses have no parameters.";
    }
    if (sqlstate == "42803" || sqlstate == "42P20") {
        return "Put it in a sub-select.";
    }
    if (sqlstate == "42501") {
        return fmt::format(
            "GRANT the privilege, or run the job as a role that has it. Rows are found by their place "
            "in the table: SELECT on the whole of {} and of every table below it is needed too.",
            compiled.relation_name);
    }
    return fmt::format("Try the same clauses in a statement of your own: EXPLAIN UPDATE {} SET ... WHERE ...",
                       compiled.relation_name);
}

// Throws the caught error again with a hint, and with the user's own text in place of a position in ours.
[[noreturn]] void restate(const pg::PgError& error, const Subject& subject, bool parsing) {
    core::Failure failure = pg::current_failure();
    if (!caused_by_text(failure.sqlstate)) {
        throw;
    }
    if (parsing && error.sqlerrcode() == ERRCODE_SYNTAX_ERROR) {
        // The server quotes to the end of what it was given, our line end included.
        if (failure.message.ends_with("\n\"")) {
            failure.message.erase(failure.message.size() - 2, 1);
        }
        failure.message += fmt::format(" in {}", subject.argument);
    }
    if (failure.detail.empty() && !subject.text.empty()) {
        failure.detail = quoted_text(subject);
    }
    if (failure.hint.empty()) {
        failure.hint = hint_for(failure.sqlstate, subject);
    } else if (failure.sqlstate == "42P01") {
        failure.hint += " " + hint_for(failure.sqlstate, subject);
    }
    failure.context.clear();
    throw pg::Error(std::move(failure));
}

// --- raw text: one clause and nothing else ---------------------------------------------------------

[[noreturn]] void smuggled(const char* argument, std::string_view what, const char* hint) {
    throw pg::Error(ERRCODE_SYNTAX_ERROR, fmt::format("{} contains {}", argument, what)).hint(hint);
}

RawStmt* parse_one(const std::string& sql, const Subject& subject) {
    List* parsed = nullptr;
    try {
        const char* const text = sql.c_str();
        parsed = pg::guard([&] { return raw_parser(text, RAW_PARSE_DEFAULT); });
    } catch (const pg::PgError& error) {
        restate(error, subject, true);
    }
    if (list_length(parsed) != 1) {
        smuggled(subject.argument, "more than one statement",
                 "Give the clause alone; run other statements yourself.");
    }
    auto* statement = static_cast<RawStmt*>(linitial(parsed));
    // Zero means "to the end of the text".
    if (statement->stmt_len != 0) {
        smuggled(subject.argument, "a semicolon at its end", "Remove the semicolon.");
    }
    return statement;
}

// The raw UPDATE, for a look at its text.
Node* parse_set(const Compiled& compiled, const Subject& subject) {
    Node* node = parse_one(fmt::format("UPDATE {} AS {} SET\n{}\n", compiled.relation_name, compiled.alias,
                                       subject.text),
                           subject)
                     ->stmt;
    if (!IsA(node, UpdateStmt)) {
        smuggled(subject.argument, "another statement",
                 "Give a list of assignments: column = expression, ...");
    }
    const auto* update = reinterpret_cast<const UpdateStmt*>(node);
    if (update->fromClause != NIL) {
        smuggled(subject.argument, "a FROM clause",
                 "Read other tables in a sub-select: a = (SELECT ... FROM ...).");
    }
    if (update->whereClause != nullptr) {
        smuggled(subject.argument, "a WHERE clause", "Give the condition as where_clause.");
    }
    if (compat::has_returning(update)) {
        smuggled(subject.argument, "a RETURNING list", "Remove it: a job returns no rows.");
    }
    if (update->withClause != nullptr) {
        smuggled(subject.argument, "a WITH clause", "Put it in a sub-select: a = (WITH ... SELECT ...).");
    }
    for (int i = 0; i < list_length(update->targetList); ++i) {
        const char* const column = static_cast<ResTarget*>(list_nth(update->targetList, i))->name;
        if (SystemAttributeByName(column) != nullptr) {
            throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED,
                            fmt::format("system column \"{}\" cannot be assigned", column))
                .hint("Leave it out of set_clause: the server maintains it.");
        }
    }
    return node;
}

// The raw condition.
Node* parse_where(const Subject& subject) {
    Node* node = parse_one(fmt::format("SELECT 1 WHERE\n{}\n", subject.text), subject)->stmt;
    if (!IsA(node, SelectStmt)) {
        smuggled(subject.argument, "another statement", "Give a condition.");
    }
    const auto* select = reinterpret_cast<const SelectStmt*>(node);
    const char* const hint = "Give the condition alone. Other rows and tables are read in a sub-select.";
    if (select->op != SETOP_NONE) {
        smuggled(subject.argument, "UNION, INTERSECT or EXCEPT", hint);
    }
    if (select->groupClause != NIL || select->havingClause != nullptr) {
        smuggled(subject.argument, "GROUP BY or HAVING", hint);
    }
    if (select->sortClause != NIL) {
        smuggled(subject.argument, "ORDER BY",
                 "Remove it: rows are taken in the order in which they are stored.");
    }
    if (select->limitCount != nullptr || select->limitOffset != nullptr) {
        smuggled(subject.argument, "LIMIT or OFFSET",
                 "Remove it: a job changes every row that matches. See the options for its pace.");
    }
    if (select->lockingClause != NIL) {
        smuggled(subject.argument, "a locking clause", "Remove it: a batch locks its rows by itself.");
    }
    if (select->windowClause != NIL || select->distinctClause != NIL || select->intoClause != nullptr ||
        select->fromClause != NIL || select->valuesLists != NIL || select->withClause != nullptr ||
        list_length(select->targetList) != 1 || select->whereClause == nullptr) {
        smuggled(subject.argument, "more than a condition", hint);
    }
    return select->whereClause;
}

// --- analysis --------------------------------------------------------------------------------------

// Analysis and planning read data under a snapshot; a worker may not have one yet. When an error flies past,
// the abort of the (sub)transaction takes it down.
class SnapshotScope {
  public:
    SnapshotScope() : exceptions_(std::uncaught_exceptions()), ours_(!ActiveSnapshotSet()) {
        if (ours_) {
            pg::guard([] { PushActiveSnapshot(GetTransactionSnapshot()); });
        }
    }
    ~SnapshotScope() {
        if (ours_ && std::uncaught_exceptions() == exceptions_) {
            PopActiveSnapshot();
        }
    }
    SnapshotScope(const SnapshotScope&) = delete;
    SnapshotScope& operator=(const SnapshotScope&) = delete;

  private:
    int exceptions_;
    bool ours_;
};

// The statement as the server understands it, without parameters.
Query* analyze(const std::string& sql) {
    const char* const text = sql.c_str();
    return pg::guard([&] {
        RawStmt* raw = linitial_node(RawStmt, raw_parser(text, RAW_PARSE_DEFAULT));
        return parse_analyze_fixedparams(raw, text, nullptr, 0, nullptr);
    });
}

// After rules, views and defaults. Raises what only the rewriter knows: generated and identity columns.
Query* rewrite(const Query* query) {
    List* const rewritten =
        pg::guard([&] { return pg_rewrite_query(static_cast<Query*>(copyObjectImpl(query))); });
    if (list_length(rewritten) != 1) {
        throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED, "a rule would rewrite the statement")
            .hint("Drop or disable the rule, or replace it by a trigger.");
    }
    return static_cast<Query*>(linitial(rewritten));
}

std::string head(const Compiled& c, const std::string& table) {
    return c.set.empty() ? fmt::format("DELETE FROM {} AS {}", table, c.alias)
                         : fmt::format("UPDATE {} AS {} SET\n{}", table, c.alias, c.set);
}

Query* analyze_as(const Compiled& c, const Subject& subject) {
    std::string sql = head(c, c.relation_name);
    if (!c.predicate.empty()) {
        sql += fmt::format("\nWHERE {}", c.predicate);
    }
    Query* query = nullptr;
    Query* rewritten = nullptr;
    try {
        query = analyze(sql);
        rewritten = rewrite(query);
    } catch (const pg::PgError& error) {
        restate(error, subject, false);
    }
    auto* target = static_cast<RangeTblEntry*>(list_nth(query->rtable, query->resultRelation - 1));
    if (target->relid != c.relation || query->resultRelation != 1 || rewritten->resultRelation != 1) {
        throw pg::Error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        fmt::format("relation {} was renamed or replaced meanwhile", c.relation_name))
            .hint("Try again.");
    }
    return query;
}

// --- rules that only we have -----------------------------------------------------------------------

void check_set(Compiled& c, const Query* query, const Node* raw, const char* relname) {
    std::vector<std::string> defaults;
    for (auto& [column, is_default] : parts::assignments(query)) {
        if (is_default) {
            defaults.push_back(column);
        }
        c.assigned_columns.push_back(std::move(column));
    }
    parts::check_partition_keys(c.relation, c.assigned_columns);
    if (!defaults.empty()) {
        parts::check_defaults(c.relation, defaults);
    }
    auto* targets = reinterpret_cast<Node*>(query->targetList);
    if (parts::examine(targets).whole_row || parts::expands_row(const_cast<Node*>(raw), relname)) {
        parts::check_row_types(c.relation);
    }
}

// Can the derived condition be true for a row that has just been changed, whatever it holds?
void check_derivable(const Compiled& c, const Query* query, const Subject& subject) {
    parts::Findings const found = parts::examine(reinterpret_cast<Node*>(rewrite(query)->targetList));
    auto refuse = [&](const std::string& reason) {
        throw pg::Error(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            fmt::format("no where_clause can be derived for {}: set_clause {}", c.relation_name, reason))
            .detail(quoted_text(subject))
            .hint(parts::hint_give_where);
    };
    if (found.volatile_call != nullptr) {
        refuse(fmt::format("calls function {}(), which is volatile: it could never be seen to be done",
                           found.volatile_call));
    }
    if (found.time_call != nullptr) {
        refuse(fmt::format("depends on {}, which has another value in every transaction", found.time_call));
    }
    if (found.system_column != nullptr) {
        refuse(fmt::format("reads system column {}, which every update changes", found.system_column));
    }
}

void check_where(const Compiled& c, const Query* query, const Node* raw, const char* relname) {
    Node* const condition = query->jointree->quals;
    if (parts::examine(condition).whole_row || parts::expands_row(const_cast<Node*>(raw), relname)) {
        parts::check_row_types(c.relation);
    }
    if (const char* call = parts::examine(rewrite(query)->jointree->quals).volatile_call) {
        throw pg::Error(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            fmt::format("where_clause calls function {}(), which is volatile: the job could never be "
                        "seen to be done",
                        call))
            .hint(
                "Use a condition that depends on the row alone. A function of your own that does can be "
                "declared "
                "so: ALTER FUNCTION ... STABLE.");
    }
}

// On one line when the user's text is.
std::string readable(const Compiled& c, std::string_view where) {
    auto long_text = [](std::string_view text) {
        return text.find('\n') != std::string_view::npos || text.find("--") != std::string_view::npos;
    };
    char const gap = long_text(c.set) || long_text(where) ? '\n' : ' ';
    return c.set.empty() ? fmt::format("DELETE FROM {}{}WHERE {}", c.relation_name, gap, where)
                         : fmt::format("UPDATE {} SET {}{}WHERE {}", c.relation_name, c.set, gap, where);
}

void check_texts(const Clauses& clauses, Action action) {
    auto refuse = [](const char* message, const char* hint) {
        throw pg::Error(ERRCODE_INVALID_PARAMETER_VALUE, message).hint(hint);
    };
    if (action == Action::update && trimmed(clauses.set).empty()) {
        refuse("set_clause must not be empty",
               "Give what stands after SET in an UPDATE: 'username = user_name'.");
    }
    if (action == Action::remove && !trimmed(clauses.set).empty()) {
        refuse("set_clause cannot be given where rows are deleted", "Leave it out.");
    }
    if (clauses.where && trimmed(*clauses.where).empty()) {
        refuse("where_clause must not be empty",
               action == Action::update
                   ? "Leave it NULL to have it derived from set_clause, or give a condition."
                   : "Give the condition of the rows to delete.");
    }
    if (action == Action::remove && !clauses.where) {
        refuse("where_clause must be given", "Give the condition of the rows to delete; 'true' deletes all.");
    }
}

}  // namespace

Compiled compile(Oid relation, const Clauses& clauses, Action action) {
    pg::OwnedContext const memory(CurrentMemoryContext);
    pg::MemoryScope const scope(memory.get());
    check_texts(clauses, action);
    SnapshotScope const snapshot;
    parts::check_relation(relation, action);
    // Held to the end of the transaction: what is checked stays as it is until it is written down.
    pg::guard([&] { LockRelationOid(relation, AccessShareLock); });

    Compiled c;
    c.relation = relation;
    c.relation_name = quoted_name(relation);
    const char* const relname = pg::guard([&] { return get_rel_name(relation); });
    if (relname == nullptr) {
        throw pg::Error(ERRCODE_UNDEFINED_TABLE,
                        fmt::format("relation {} was dropped meanwhile", c.relation_name))
            .hint("Name a table that exists.");
    }
    c.alias = quote_identifier(relname);

    std::string_view const where = clauses.where ? trimmed(*clauses.where) : std::string_view{};
    Subject const set_subject{"set_clause", trimmed(clauses.set), c};
    Subject const where_subject{"where_clause", where, c};
    const Node* raw_where = clauses.where ? parse_where(where_subject) : nullptr;
    Query* query = nullptr;
    if (action == Action::update) {
        const Node* raw_set = parse_set(c, set_subject);
        c.set = set_subject.text;
        query = analyze_as(c, set_subject);
        check_set(c, query, raw_set, relname);
    }
    if (clauses.where) {
        c.predicate = fmt::format("(\n{}\n)", where);
        check_where(c, analyze_as(c, where_subject), raw_where, relname);
        c.statement = readable(c, where);
        return c;
    }
    check_derivable(c, query, set_subject);
    c.derived = true;
    c.predicate = parts::derive(query, relation, c.alias);
    try {
        std::string const sql = fmt::format("{}\nWHERE {}", head(c, c.relation_name), c.predicate);
        (void)analyze(sql);
    } catch (const pg::PgError& error) {
        core::Failure const failure = pg::current_failure();
        if (!caused_by_text(failure.sqlstate)) {
            throw;
        }
        throw pg::Error(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            fmt::format("no where_clause can be derived for {}: {}", c.relation_name, failure.message))
            .detail(fmt::format("Tried: {}", c.predicate))
            .hint(parts::hint_give_where);
    }
    c.statement = readable(c, std::string_view(c.predicate).substr(1, c.predicate.size() - 2));
    return c;
}

namespace {

// The batch statement with its bounds as text.
std::string batch(const Compiled& c, const std::string& leaf, const char* first, const char* end) {
    std::string sql = fmt::format(
        "{}\nWHERE {}.ctid OPERATOR(pg_catalog.>=) {} AND {}.ctid OPERATOR(pg_catalog.<) {} AND {}",
        head(c, "ONLY " + leaf), c.alias, first, c.alias, end, c.predicate);
    if (!c.set.empty()) {
        sql += fmt::format("\nRETURNING {}", c.predicate);
    }
    return sql;
}

}  // namespace

std::string batch_statement(const Compiled& compiled, Oid leaf) {
    return batch(compiled, quoted_name(leaf), "$1", "$2");
}

std::string look_statement(const Compiled& c) {
    return fmt::format("SELECT {0}.tableoid, {0}.ctid FROM {1} AS {0} WHERE {2}", c.alias, c.relation_name,
                       c.predicate);
}

void check_privileges(const Compiled& c) {
    // EXPLAIN starts the executor, which checks the privileges of every relation and function of the
    // statement.
    Subject const subject{"statement", c.statement, c};
    SnapshotScope const snapshot;
    auto explain = [&](const std::string& statement) {
        std::string const sql = "EXPLAIN (COSTS OFF) " + statement;
        const char* const text = sql.c_str();
        try {
            pg::Spi const spi;
            pg::guard([&] {
                int const code = SPI_execute(text, false, 0);
                if (code < 0) {
                    elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(code));
                }
            });
        } catch (const pg::PgError& error) {
            restate(error, subject, false);
        }
    };
    const char* const bound = "'(0,0)'::pg_catalog.tid";
    std::vector<Oid> const tables = leaves(c.relation);
    if (std::find(tables.begin(), tables.end(), c.relation) == tables.end()) {
        explain(fmt::format("{}\nWHERE false", head(c, c.relation_name)));
    }
    for (Oid const leaf : tables) {
        explain(batch(c, quoted_name(leaf), bound, bound));
    }
    explain(look_statement(c));
}

}  // namespace zdm::backfill
