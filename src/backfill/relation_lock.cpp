#include "backfill/relation_lock.hpp"

#include "jobs/blockers.hpp"
#include "pg/identity.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

namespace {

[[noreturn]] void throw_busy(Oid relation) {
    pg::Bookkeeping as_extension;
    throw RelationBusy{jobs::relation_blocker(relation)};
}

}  // namespace

void lock_at_once(Oid relation, LOCKMODE mode) {
    Oid const busy = pg::guard([&] {
        if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relation))) {
            return InvalidOid;  // dropped: whoever opens it says so
        }
        ListCell* cell;
        foreach (cell, find_all_inheritors(relation, NoLock, nullptr)) {
            if (!ConditionalLockRelationOid(lfirst_oid(cell), lfirst_oid(cell) == relation ? mode : AccessShareLock)) {
                return lfirst_oid(cell);
            }
        }
        return InvalidOid;
    });
    if (OidIsValid(busy)) {
        throw_busy(busy);
    }
}

void lock_leaf_at_once(Oid leaf, LOCKMODE mode) {
    if (!pg::guard([&] { return ConditionalLockRelationOid(leaf, mode); })) {
        throw_busy(leaf);
    }
}

}  // namespace zdm::backfill
