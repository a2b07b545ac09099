// Reading an analyzed UPDATE: what it assigns, whether its rows can be seen to be done, and the condition
// that tells.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "backfill/clause_parts.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill::parts {

namespace {

// --- walkers: called by PostgreSQL, so nothing here throws ------------------------------------------

// Functions that are declared STABLE but give another value in another transaction or process.
bool differs_by_transaction(Oid function) {
    static constexpr Oid list[] = {
        F_NOW,
        F_TRANSACTION_TIMESTAMP,
        F_STATEMENT_TIMESTAMP,
        F_AGE_TIMESTAMPTZ,
        F_AGE_TIMESTAMP,
        F_AGE_XID,
        F_MXID_AGE,
        F_TXID_CURRENT,
        F_TXID_CURRENT_IF_ASSIGNED,
        F_TXID_CURRENT_SNAPSHOT,
        F_PG_CURRENT_XACT_ID,
        F_PG_CURRENT_XACT_ID_IF_ASSIGNED,
        F_PG_CURRENT_SNAPSHOT,
        F_PG_BACKEND_PID,
    };
    return std::find(std::begin(list), std::end(list), function) != std::end(list);
}

struct Walk {
    Findings found;
    Index depth = 0;  // sub-selects entered
};

bool check_function(Oid function, void* context) {
    Findings& found = static_cast<Walk*>(context)->found;
    if (func_volatile(function) == PROVOLATILE_VOLATILE) {
        found.volatile_call = get_func_name(function);
    } else if (differs_by_transaction(function)) {
        found.time_call = psprintf("%s()", get_func_name(function));
    }
    return false;
}

const char* name_of(const SQLValueFunction* function) {
    switch (function->op) {
        case SVFOP_CURRENT_DATE:
            return "CURRENT_DATE";
        case SVFOP_CURRENT_TIME:
        case SVFOP_CURRENT_TIME_N:
            return "CURRENT_TIME";
        case SVFOP_CURRENT_TIMESTAMP:
        case SVFOP_CURRENT_TIMESTAMP_N:
            return "CURRENT_TIMESTAMP";
        case SVFOP_LOCALTIME:
        case SVFOP_LOCALTIME_N:
            return "LOCALTIME";
        case SVFOP_LOCALTIMESTAMP:
        case SVFOP_LOCALTIMESTAMP_N:
            return "LOCALTIMESTAMP";
        default:
            return nullptr;
    }
}

const char* header_column(AttrNumber number) {
    switch (number) {
        case SelfItemPointerAttributeNumber:
            return "ctid";
        case MinTransactionIdAttributeNumber:
            return "xmin";
        case MinCommandIdAttributeNumber:
            return "cmin";
        case MaxTransactionIdAttributeNumber:
            return "xmax";
        case MaxCommandIdAttributeNumber:
            return "cmax";
        default:
            return nullptr;
    }
}

bool examine_walker(Node* node, void* context) {
    if (node == nullptr) {
        return false;
    }
    Walk& walk = *static_cast<Walk*>(context);
    (void)check_functions_in_node(node, check_function, context);
    if (IsA(node, NextValueExpr)) {
        walk.found.volatile_call = "nextval";
    } else if (IsA(node, SQLValueFunction)) {
        if (const char* name = name_of(castNode(SQLValueFunction, node))) {
            walk.found.time_call = name;
        }
    } else if (IsA(node, Var)) {
        const Var* var = castNode(Var, node);
        if (var->varno == 1 && var->varlevelsup == walk.depth) {
            walk.found.whole_row |= var->varattno == 0;
            if (const char* name = header_column(var->varattno)) {
                walk.found.system_column = name;
            }
        }
        return false;
    } else if (IsA(node, Query)) {
        ++walk.depth;
        (void)compat::walk_query(castNode(Query, node), examine_walker, context);
        --walk.depth;
        return false;
    }
    return compat::walk_expression(node, examine_walker, context);
}

struct Stars {
    const char* relname;
    bool inside = false;  // a sub-select: a bare * is its own
};

bool star_walker(Node* node, void* context) {
    if (node == nullptr) {
        return false;
    }
    Stars& stars = *static_cast<Stars*>(context);
    if (IsA(node, ColumnRef)) {
        List* fields = castNode(ColumnRef, node)->fields;
        if (!IsA(llast(fields), A_Star)) {
            return false;
        }
        if (list_length(fields) == 1) {
            return !stars.inside;
        }
        Node* qualifier = static_cast<Node*>(list_nth(fields, list_length(fields) - 2));
        return IsA(qualifier, String) && strcmp(strVal(qualifier), stars.relname) == 0;
    }
    if (IsA(node, SelectStmt)) {
        Stars inner{stars.relname, true};
        return compat::walk_raw(node, star_walker, &inner);
    }
    return compat::walk_raw(node, star_walker, context);
}

// --- derivation: runs inside a guard, so plain C strings --------------------------------------------

// What could not be derived, for the message.
struct Refusal {
    const char* column = nullptr;
    const char* reason = nullptr;
};

struct Replacement {
    const List* targets;
    bool failed = false;
};

// `(a, b) = (SELECT x, y ...)`: the analyzed tree has the sub-select once and a parameter for each column.
// For column k the parameter becomes a sub-select of its own that returns its k-th value.
Node* split_subselect(Node* node, void* context) {
    if (node == nullptr) {
        return nullptr;
    }
    Replacement& replacement = *static_cast<Replacement*>(context);
    if (!IsA(node, Param) || castNode(Param, node)->paramkind != PARAM_MULTIEXPR) {
        return compat::mutate_expression(node, split_subselect, context);
    }
    int const id = castNode(Param, node)->paramid >> 16;
    int const column = castNode(Param, node)->paramid & 0xFFFF;
    ListCell* cell = nullptr;
    foreach (cell, replacement.targets) {
        TargetEntry* entry = lfirst_node(TargetEntry, cell);
        if (!IsA(entry->expr, SubLink) || castNode(SubLink, entry->expr)->subLinkType != MULTIEXPR_SUBLINK ||
            castNode(SubLink, entry->expr)->subLinkId != id) {
            continue;
        }
        auto* query = static_cast<Query*>(copyObjectImpl(castNode(SubLink, entry->expr)->subselect));
        // There the other columns decide how many rows there are.
        if (query->setOperations != nullptr || query->distinctClause != NIL || query->hasTargetSRFs) {
            break;
        }
        TargetEntry* wanted = nullptr;
        int visible = 0;
        ListCell* inner = nullptr;
        foreach (inner, query->targetList) {
            TargetEntry* target = lfirst_node(TargetEntry, inner);
            if (target->resjunk) {
                continue;
            }
            if (++visible == column) {
                wanted = target;
            } else {
                target->resjunk = true;
            }
        }
        if (wanted == nullptr) {
            break;
        }
        query->targetList = lcons(wanted, list_delete_ptr(query->targetList, wanted));
        SubLink* link = makeNode(SubLink);
        link->subLinkType = EXPR_SUBLINK;
        link->subselect = reinterpret_cast<Node*>(query);
        link->location = -1;
        return reinterpret_cast<Node*>(link);
    }
    replacement.failed = true;
    return node;
}

// An assignment to a part of a column: a[1] = ..., c.f = ...
bool assigns_part(Node* node) {
    for (;;) {
        if (node == nullptr) {
            return false;
        }
        if (IsA(node, FieldStore)) {
            return true;
        }
        if (IsA(node, SubscriptingRef)) {
            return castNode(SubscriptingRef, node)->refassgnexpr != nullptr;
        }
        if (!IsA(node, CoerceToDomain)) {
            return false;
        }
        node = reinterpret_cast<Node*>(castNode(CoerceToDomain, node)->arg);
    }
}

// Can `IS DISTINCT FROM` compare two values of the type, as the current search_path resolves it?
bool has_equality(Oid type) {
    if (!OidIsValid(lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr)) {
        return false;
    }
    char name[] = "=";
    Operator found = oper(nullptr, list_make1(makeString(name)), type, type, true, -1);
    if (found == nullptr) {
        return false;
    }
    ReleaseSysCache(found);
    return true;
}

// A composite type, an array of one, or a domain over either.
bool holds_rows(Oid type) {
    Oid const element = get_base_element_type(type);
    return type_is_rowtype(OidIsValid(element) ? element : getBaseType(type));
}

void derive_one(StringInfo out, Relation relation, const Query* query, TargetEntry* entry, const char* alias,
                List* names, Refusal& refusal) {
    Form_pg_attribute column = TupleDescAttr(RelationGetDescr(relation), entry->resno - 1);
    refusal.column = NameStr(column->attname);
    auto* value = reinterpret_cast<Node*>(entry->expr);
    if (IsA(value, SetToDefault)) {
        value = build_column_default(relation, entry->resno);
    }
    if (assigns_part(value)) {
        refusal.reason = "only a part of the column is assigned";
        return;
    }
    Replacement replacement{query->targetList};
    value = split_subselect(value, &replacement);
    if (replacement.failed) {
        refusal.reason = "the sub-select for several columns cannot be taken apart";
        return;
    }
    const char* target = psprintf("%s.%s", alias, quote_identifier(NameStr(column->attname)));
    if (value == nullptr || (IsA(value, Const) && castNode(Const, value)->constisnull)) {
        appendStringInfo(out, "%s IS DISTINCT FROM NULL", target);
        return;
    }
    const char* text = deparse_expression(value, names, true, true);
    bool const comparable = has_equality(column->atttypid);
    if (!comparable || holds_rows(column->atttypid)) {
        // Deparsing leaves the implicit type of a row constructor out.
        text = psprintf("(%s)::%s", text, format_type_be_qualified(column->atttypid));
    }
    if (!comparable) {
        appendStringInfo(out,
                         "ROW(%s)::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW(%s)::pg_catalog.record",
                         target, text);
        return;
    }
    appendStringInfo(out, "%s IS DISTINCT FROM (%s)", target, text);
    // Two columns of different collations do not compare until one is named.
    if (OidIsValid(column->attcollation) && exprCollation(value) != column->attcollation) {
        appendStringInfo(out, " COLLATE %s", generate_collation_name(column->attcollation));
    }
}

// Constants are printed so that they read back as the same value, whatever the session prints them like.
void print_exactly() {
    for (const auto& [name, value] : {std::pair{"datestyle", "ISO"}, std::pair{"intervalstyle", "postgres"},
                                      std::pair{"extra_float_digits", "3"}}) {
        (void)set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
    }
}

}  // namespace

std::vector<Assignment> assignments(const Query* query) {
    std::vector<Assignment> result;
    for (int i = 0; i < list_length(query->targetList); ++i) {
        auto* entry = static_cast<TargetEntry*>(list_nth(query->targetList, i));
        if (entry->resjunk) {
            continue;
        }
        bool const is_default = entry->expr != nullptr && IsA(entry->expr, SetToDefault);
        std::string column = entry->resname;
        if (std::none_of(result.begin(), result.end(),
                         [&](const Assignment& a) { return a.column == column; })) {
            result.push_back({std::move(column), is_default});
        }
    }
    return result;
}

Findings examine(Node* node) {
    return pg::guard([&] {
        Walk walk;
        (void)examine_walker(node, &walk);
        if (walk.found.volatile_call == nullptr && contain_volatile_functions(node)) {
            walk.found.volatile_call = "unknown";
        }
        return walk.found;
    });
}

bool expands_row(Node* raw, const char* relname) {
    return pg::guard([&] {
        Stars stars{relname};
        return star_walker(raw, &stars);
    });
}

std::string derive(const Query* query, Oid relation, const std::string& alias) {
    const char* const name = alias.c_str();
    Refusal refusal;
    const char* const text = pg::guard([&]() -> const char* {
        int const level = NewGUCNestLevel();
        print_exactly();
        Relation opened = table_open(relation, AccessShareLock);
        List* names = deparse_context_for(RelationGetRelationName(opened), relation);
        StringInfoData out;
        initStringInfo(&out);
        ListCell* cell = nullptr;
        foreach (cell, query->targetList) {
            TargetEntry* entry = lfirst_node(TargetEntry, cell);
            if (entry->resjunk) {
                continue;
            }
            if (out.len > 0) {
                appendStringInfoString(&out, " OR ");
            }
            derive_one(&out, opened, query, entry, name, names, refusal);
            if (refusal.reason != nullptr) {
                refusal.column = pstrdup(refusal.column);
                break;
            }
        }
        table_close(opened, AccessShareLock);
        AtEOXact_GUC(true, level);
        return out.data;
    });
    if (refusal.reason != nullptr) {
        throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED,
                        fmt::format("no where_clause can be derived for column \"{}\" of {}: {}",
                                    refusal.column, quoted_name(relation), refusal.reason))
            .hint(hint_give_where);
    }
    return fmt::format("({})", text);
}

}  // namespace zdm::backfill::parts
