// Which relations batches can be run on.
#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "backfill/clause_parts.hpp"
#include "pg/identity.hpp"
#include "pg/memory.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

namespace {

// What the checks need to know of one relation. Strings live in the current memory context.
struct Member {
    Oid oid = InvalidOid;
    char kind = 0;  // 0: the relation is gone
    char persistence = 0;
    bool catalog = false;
    bool heap = false;
    bool row_security = false;
    const char* trigger = nullptr;  // a statement-level trigger of the action
    const char* rule = nullptr;     // a rule of the action, described
};

bool fires(char enabled) {
    return enabled == TRIGGER_FIRES_ON_ORIGIN || enabled == TRIGGER_FIRES_ALWAYS;
}

const char* statement_trigger(const TriggerDesc* triggers, Action action) {
    for (int i = 0; triggers != nullptr && i < triggers->numtriggers; ++i) {
        const Trigger& t = triggers->triggers[i];
        bool const concerned =
            action == Action::update ? TRIGGER_FOR_UPDATE(t.tgtype) != 0 : TRIGGER_FOR_DELETE(t.tgtype) != 0;
        if (concerned && !TRIGGER_FOR_ROW(t.tgtype) && fires(t.tgenabled)) {
            return pstrdup(t.tgname);
        }
    }
    return nullptr;
}

const char* rule_of(const RuleLock* rules, Action action) {
    CmdType const event = action == Action::update ? CMD_UPDATE : CMD_DELETE;
    for (int i = 0; rules != nullptr && i < rules->numLocks; ++i) {
        const RewriteRule& rule = *rules->rules[i];
        if (rule.event == event &&
            (rule.enabled == RULE_FIRES_ON_ORIGIN || rule.enabled == RULE_FIRES_ALWAYS)) {
            ObjectAddress const address{RewriteRelationId, rule.ruleId, 0};
            return getObjectDescription(&address, true);
        }
    }
    return nullptr;
}

Member inspect(Oid oid, Action action) {
    return pg::guard([&] {
        Member m;
        m.oid = oid;
        Relation relation = try_relation_open(oid, AccessShareLock);
        if (relation == nullptr) {
            return m;
        }
        const FormData_pg_class* form = relation->rd_rel;
        m.kind = form->relkind;
        m.persistence = form->relpersistence;
        m.catalog = IsSystemRelation(relation) || oid < FirstNormalObjectId ||
                    form->relnamespace == get_namespace_oid("information_schema", true);
        m.heap = form->relam == HEAP_TABLE_AM_OID;
        if (m.kind == RELKIND_RELATION || m.kind == RELKIND_PARTITIONED_TABLE) {
            // No error where row_security is off: the refusal says more.
            m.row_security = check_enable_rls(oid, InvalidOid, true) == RLS_ENABLED;
            m.trigger = statement_trigger(relation->trigdesc, action);
            m.rule = rule_of(relation->rd_rules, action);
        }
        relation_close(relation, AccessShareLock);
        return m;
    });
}

// The relation and everything below it, root first, the others by OID; without the temporary children that a
// permanent table may have (an UPDATE of another session does not see them either).
// Locked while the catalogs are read, then let go: what a caller does with a leaf locks it again.
std::vector<Oid> tree(Oid relation) {
    List* const members = pg::guard([&] {
        LockRelationOid(relation, AccessShareLock);
        List* all = NIL;
        if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relation))) {
            all = find_all_inheritors(relation, AccessShareLock, nullptr);
        } else {
            UnlockRelationOid(relation, AccessShareLock);
        }
        List* kept = NIL;
        ListCell* cell = nullptr;
        foreach (cell, all) {
            Oid const member = lfirst_oid(cell);
            if (member == relation || get_rel_persistence(member) != RELPERSISTENCE_TEMP) {
                kept = lappend_oid(kept, member);
            }
            UnlockRelationOid(member, AccessShareLock);
        }
        return kept;
    });
    std::vector<Oid> result;
    for (int i = 0; i < list_length(members); ++i) {
        result.push_back(list_nth_oid(members, i));
    }
    if (result.empty()) {
        throw pg::Error(ERRCODE_UNDEFINED_TABLE, fmt::format("relation with OID {} does not exist", relation))
            .hint("It may have been dropped. Name a table that exists.");
    }
    std::sort(result.begin() + 1, result.end());
    return result;
}

char kind_of(Oid relation) {
    return pg::guard([&] { return get_rel_relkind(relation); });
}

const char* doing(Action action) {
    return action == Action::update ? "be backfilled" : "have rows deleted in batches";
}

// The relations that are not tables at all.
void check_kind(const Member& root, Action action) {
    const char* what = nullptr;
    const char* hint = "Name a table.";
    switch (root.kind) {
        case RELKIND_RELATION:
        case RELKIND_PARTITIONED_TABLE:
            return;
        case RELKIND_VIEW:
            what = "a view";
            hint = "Name the table that the view reads.";
            break;
        case RELKIND_MATVIEW:
            what = "a materialized view";
            hint = "REFRESH MATERIALIZED VIEW computes its rows; name the table that it reads.";
            break;
        case RELKIND_FOREIGN_TABLE:
            what = "a foreign table";
            hint = "Run this on the server that holds the table.";
            break;
        case RELKIND_SEQUENCE:
            what = "a sequence";
            break;
        case RELKIND_INDEX:
        case RELKIND_PARTITIONED_INDEX:
            what = "an index";
            hint = "Name the table of the index.";
            break;
        case RELKIND_COMPOSITE_TYPE:
            what = "a composite type";
            break;
        case RELKIND_TOASTVALUE:
            what = "a TOAST table";
            hint = "Name the table that it belongs to.";
            break;
        default:
            what = "not a table";
    }
    throw pg::Error(ERRCODE_WRONG_OBJECT_TYPE, fmt::format("relation {} cannot {}: it is {}",
                                                           quoted_name(root.oid), doing(action), what))
        .hint(hint);
}

// What makes a table, the root or one below it, one that this cannot do right.
void check_member(const Member& m, const Member& root, Action action, bool has_children, Oid extension) {
    auto refuse = [&](const std::string& reason, const std::string& hint) {
        throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED,
                        fmt::format("table {} cannot {}: {}", quoted_name(root.oid), doing(action), reason))
            .hint(hint);
    };
    std::string const it =
        m.oid == root.oid ? "it" : fmt::format("its partition or child {}", quoted_name(m.oid));
    if (m.catalog) {
        refuse(it + " belongs to the system catalogs", "Name a table of your own.");
    }
    if (m.persistence == RELPERSISTENCE_TEMP) {
        refuse(it + " is a temporary table, which background workers cannot see",
               "Use a plain UPDATE or DELETE: no other session reads the table.");
    }
    if (OidIsValid(extension) &&
        pg::guard([&] { return getExtensionOfObject(RelationRelationId, m.oid); }) == extension) {
        refuse(it + " belongs to zdm_ext", "Name a table of your own.");
    }
    if (m.kind == RELKIND_FOREIGN_TABLE) {
        refuse(it + " is a foreign table",
               "Name the partitions that are tables of this server one by one, and run the rest where it is "
               "stored.");
    }
    if (m.kind == RELKIND_RELATION && !m.heap) {
        refuse(it + " uses a table access method other than heap", "Use a plain UPDATE or DELETE.");
    }
    if (m.row_security) {
        const char* role = pg::guard([] { return quote_identifier(GetUserNameFromId(GetUserId(), false)); });
        refuse(fmt::format("row-level security of {} would hide rows from role {}", quoted_name(m.oid), role),
               fmt::format(
                   "Run it as the owner of the table (without FORCE ROW LEVEL SECURITY), or as a role with "
                   "BYPASSRLS: ALTER ROLE {} BYPASSRLS.",
                   role));
    }
    if (m.rule != nullptr) {
        refuse(fmt::format("{} would rewrite the statement", m.rule),
               "Drop or disable the rule, or replace it by a trigger.");
    }
    // A plain table's own statement-level triggers fire, once a batch.
    bool const bypassed = m.kind == RELKIND_PARTITIONED_TABLE || (m.oid == root.oid && has_children);
    if (bypassed && m.trigger != nullptr) {
        refuse(
            fmt::format(
                "statement-level trigger \"{}\" of {} would not fire, because the tables below it are "
                "changed one by one",
                m.trigger, quoted_name(m.oid)),
            fmt::format("Disable the trigger, or make it a row-level trigger, or start one job for each {}.",
                        root.kind == RELKIND_PARTITIONED_TABLE ? "partition" : "table below it"));
    }
}

}  // namespace

std::string quoted_name(Oid relation) {
    const char* name = pg::guard([&]() -> const char* {
        char* relname = get_rel_name(relation);
        if (relname == nullptr) {
            return nullptr;
        }
        return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), relname);
    });
    if (name == nullptr) {
        throw pg::Error(ERRCODE_UNDEFINED_TABLE, fmt::format("relation with OID {} does not exist", relation))
            .hint("It may have been dropped. Name a table that exists.");
    }
    return name;
}

void check_relation(Oid relation) {
    parts::check_relation(relation, Action::update);
}

std::vector<Oid> leaves(Oid relation) {
    pg::OwnedContext const memory(CurrentMemoryContext);
    pg::MemoryScope const scope(memory.get());
    std::vector<Oid> result = tree(relation);
    std::erase_if(result, [](Oid member) { return kind_of(member) != RELKIND_RELATION; });
    return result;
}

namespace parts {

void check_relation(Oid relation, Action action) {
    pg::OwnedContext const memory(CurrentMemoryContext);
    pg::MemoryScope const scope(memory.get());
    std::vector<Oid> const members = tree(relation);
    Member const root = inspect(relation, action);
    check_kind(root, action);
    Oid const extension = pg::find_extension().oid;
    for (Oid const member : members) {
        Member const m = member == relation ? root : inspect(member, action);
        if (m.kind != 0) {
            check_member(m, root, action, members.size() > 1, extension);
        }
    }
}

void check_partition_keys(Oid relation, const std::vector<std::string>& columns) {
    std::vector<Oid> related = tree(relation);
    List* const above =
        pg::guard([&] { return get_rel_relispartition(relation) ? get_partition_ancestors(relation) : NIL; });
    for (int i = 0; i < list_length(above); ++i) {
        related.push_back(list_nth_oid(above, i));
    }
    for (Oid const table : related) {
        if (kind_of(table) != RELKIND_PARTITIONED_TABLE) {
            continue;
        }
        for (const std::string& column : columns) {
            const char* const name = column.c_str();
            bool const key = pg::guard([&] {
                AttrNumber const number = get_attnum(table, name);
                Relation opened =
                    number == InvalidAttrNumber ? nullptr : try_relation_open(table, AccessShareLock);
                if (opened == nullptr) {
                    return false;
                }
                bool in_expression = false;
                bool const found = has_partition_attrs(
                    opened, bms_make_singleton(number - FirstLowInvalidHeapAttributeNumber), &in_expression);
                relation_close(opened, AccessShareLock);
                return found;
            });
            if (key) {
                throw pg::Error(
                    ERRCODE_FEATURE_NOT_SUPPORTED,
                    fmt::format("column \"{}\" cannot be assigned: it is part of the partition key of {}",
                                column, quoted_name(table)))
                    .hint(
                        "Rows do not move between partitions in a backfill. Leave the column out of "
                        "set_clause and "
                        "move the rows with UPDATE statements of your own.");
            }
        }
    }
}

void check_defaults(Oid relation, const std::vector<std::string>& columns) {
    std::vector<Oid> const tables = leaves(relation);
    for (const std::string& column : columns) {
        const char* const name = column.c_str();
        // The default as text, columns under one name whatever the table.
        auto text = [&](Oid table) {
            return pg::guard([&]() -> const char* {
                Relation opened = table_open(table, AccessShareLock);
                Node* const value = build_column_default(opened, get_attnum(table, name));
                const char* result = "NULL";
                if (value != nullptr) {
                    result = deparse_expression(value, deparse_context_for("zdm", table), true, true);
                }
                table_close(opened, AccessShareLock);
                return result;
            });
        };
        std::string const wanted = text(relation);
        for (Oid const table : tables) {
            std::string const found = table == relation ? wanted : text(table);
            if (found != wanted) {
                throw pg::Error(
                    ERRCODE_FEATURE_NOT_SUPPORTED,
                    fmt::format("column \"{}\" cannot be set to DEFAULT: {} has another default than {}",
                                column, quoted_name(table), quoted_name(relation)))
                    .detail(fmt::format("{} against {}.", found, wanted))
                    .hint("Write the value in place of DEFAULT.");
            }
        }
    }
}

void check_row_types(Oid relation) {
    for (Oid const table : leaves(relation)) {
        bool const same = table == relation || pg::guard([&] {
                              Relation a = table_open(relation, AccessShareLock);
                              Relation b = table_open(table, AccessShareLock);
                              auto next = [](TupleDesc d, int& i) -> const FormData_pg_attribute* {
                                  while (i < d->natts && TupleDescAttr(d, i)->attisdropped) {
                                      ++i;
                                  }
                                  return i < d->natts ? TupleDescAttr(d, i++) : nullptr;
                              };
                              int i = 0;
                              int j = 0;
                              bool equal = true;
                              while (equal) {
                                  const FormData_pg_attribute* x = next(RelationGetDescr(a), i);
                                  const FormData_pg_attribute* y = next(RelationGetDescr(b), j);
                                  if (x == nullptr && y == nullptr) {
                                      break;
                                  }
                                  equal = x != nullptr && y != nullptr &&
                                          strcmp(NameStr(x->attname), NameStr(y->attname)) == 0;
                              }
                              table_close(b, AccessShareLock);
                              table_close(a, AccessShareLock);
                              return equal;
                          });
        if (!same) {
            throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED,
                            fmt::format("the clauses read whole rows of {}, which look different in {}",
                                        quoted_name(relation), quoted_name(table)))
                .hint("Name the columns one by one, or start one job for each partition.");
        }
    }
}

}  // namespace parts
}  // namespace zdm::backfill
