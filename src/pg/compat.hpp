// Every difference between the server versions we build for (15, 16, 17, 18) stands here and nowhere else.
// Included by pg/postgres.hpp alone.
#pragma once

#if PG_VERSION_NUM < 150000
#error "zdm_ext needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM >= 180000
extern "C" {
#include "commands/explain_state.h"
}
#endif

#if PG_VERSION_NUM < 170000
extern "C" {
#include "storage/sinvaladt.h"
}
#endif

namespace zdm::compat {

// May `member` do SET ROLE `role`? From 16 on memberships carry a SET option.
inline bool may_set_role(Oid member, Oid role) {
#if PG_VERSION_NUM >= 160000
    return member_can_set_role(member, role);
#else
    return is_member_of_role(member, role);
#endif
}

// The file a relation's tuples are in: a new one means that every block number we remember is void.
inline Oid relation_file(Relation relation) {
#if PG_VERSION_NUM >= 160000
    return static_cast<Oid>(relation->rd_locator.relNumber);
#else
    return relation->rd_node.relNode;
#endif
}

// The process behind a virtual transaction id, or nullptr.
inline PGPROC* proc_of(const VirtualTransactionId& vxid) {
#if PG_VERSION_NUM >= 170000
    return ProcNumberGetProc(vxid.procNumber);
#else
    return BackendIdGetProc(vxid.backendId);
#endif
}

// Is this process a background worker? (Walked without a lock: the answer may be stale, which only wastes a wake-up.)
inline bool is_background_worker(const PGPROC* proc) {
#if PG_VERSION_NUM >= 180000
    return !proc->isRegularBackend;
#else
    return proc->isBackgroundWorker;
#endif
}

// Number of slots in ProcGlobal->allProcs that can belong to sessions and workers.
inline uint32 proc_count() { return ProcGlobal->allProcCount; }

// Adds the TID range path of a relation to its path list when the quals allow one.
inline void add_tid_paths(PlannerInfo* root, RelOptInfo* relation) {
    (void)create_tidscan_paths(root, relation);
}

inline bool lock_held_by_me(const LOCKTAG* tag, LOCKMODE mode) {
#if PG_VERSION_NUM >= 170000
    return LockHeldByMe(tag, mode, false);
#else
    return LockHeldByMe(tag, mode);
#endif
}

// Session defaults of a worker: timeouts and modes that a role or a database may carry are not meant for jobs.
inline void set_session_defaults() {
    struct Setting {
        const char* name;
        const char* value;
    };
    static constexpr Setting settings[] = {
        {"statement_timeout", "0"},
        {"lock_timeout", "0"},
        {"idle_in_transaction_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
        {"transaction_timeout", "0"},
#endif
        {"default_transaction_isolation", "read committed"},
        {"default_transaction_read_only", "off"},
        {"default_transaction_deferrable", "off"},
        {"search_path", "pg_catalog, pg_temp"},
    };
    for (const Setting& setting : settings) {
        SetConfigOption(setting.name, setting.value, PGC_USERSET, PGC_S_SESSION);
    }
}

// Walks the nodes of a tree. Until 15 the walkers are declared without parameters, which C++ takes at its word.
using TreeWalker = bool (*)(Node*, void*);
using TreeMutator = Node* (*)(Node*, void*);

#if PG_VERSION_NUM >= 160000
inline bool walk_expression(Node* node, TreeWalker f, void* c) { return expression_tree_walker_impl(node, f, c); }
inline bool walk_query(Query* query, TreeWalker f, void* c) { return query_tree_walker_impl(query, f, c, 0); }
inline bool walk_raw(Node* node, TreeWalker f, void* c) { return raw_expression_tree_walker_impl(node, f, c); }
inline Node* mutate_expression(Node* node, TreeMutator f, void* c) {
    return expression_tree_mutator_impl(node, f, c);
}
#else
namespace detail {
using AnyFunction = void (*)();
inline auto untyped(TreeWalker f) { return reinterpret_cast<bool (*)()>(reinterpret_cast<AnyFunction>(f)); }
inline auto untyped(TreeMutator f) { return reinterpret_cast<Node* (*)()>(reinterpret_cast<AnyFunction>(f)); }
}  // namespace detail
inline bool walk_expression(Node* node, TreeWalker f, void* c) {
    return expression_tree_walker(node, detail::untyped(f), c);
}
inline bool walk_query(Query* query, TreeWalker f, void* c) {
    return query_tree_walker(query, detail::untyped(f), c, 0);
}
inline bool walk_raw(Node* node, TreeWalker f, void* c) {
    return raw_expression_tree_walker(node, detail::untyped(f), c);
}
inline Node* mutate_expression(Node* node, TreeMutator f, void* c) {
    return expression_tree_mutator(node, detail::untyped(f), c);
}
#endif

// Does a raw UPDATE or DELETE have a RETURNING list?
template <class Statement>
bool has_returning(const Statement* statement) {
#if PG_VERSION_NUM >= 180000
    return statement->returningClause != nullptr;
#else
    return statement->returningList != NIL;
#endif
}

}  // namespace zdm::compat
