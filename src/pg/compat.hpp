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

inline bool may_connect(Oid database, Oid role) {
#if PG_VERSION_NUM >= 160000
    return object_aclcheck(DatabaseRelationId, database, role, ACL_CONNECT) == ACLCHECK_OK;
#else
    return pg_database_aclcheck(database, role, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

}  // namespace zdm::compat
