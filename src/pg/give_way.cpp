#include "pg/give_way.hpp"

#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::pg {

namespace {
bool giving_way = false;
}

void give_way(bool on) noexcept {
    if (on == giving_way) {
        return;
    }
    giving_way = on;
    LWLockAcquire(ProcArrayLock, LW_EXCLUSIVE);
    if (on) {
        MyProc->statusFlags |= PROC_IS_AUTOVACUUM;
    } else {
        MyProc->statusFlags &= static_cast<uint8>(~PROC_IS_AUTOVACUUM);
    }
    ProcGlobal->statusFlags[MyProc->pgxactoff] = MyProc->statusFlags;
    LWLockRelease(ProcArrayLock);
}

StandFirm::StandFirm() noexcept : gave_way_(giving_way) { give_way(false); }

StandFirm::~StandFirm() { give_way(gave_way_); }

bool database_wanted() {
    // New sessions take this lock for a moment while they connect.
    return guard([] {
        LOCKTAG tag;
        SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
        if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL) {
            return true;
        }
        LockRelease(&tag, RowExclusiveLock, true);
        return false;
    });
}

}  // namespace zdm::pg
