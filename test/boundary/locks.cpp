// SessionLock and the locks around it, one at a time, driven from SQL.
#include "boundary.hpp"

#include <map>
#include <utility>

#include "pg/export.hpp"
#include "pg/lock.hpp"
#include "pg/postgres.hpp"

namespace pg = zdm::pg;
using pg::LockSpace;

namespace {

// The session's locks. Made on first use: a library has no static constructors.
std::map<std::int64_t, pg::SessionLock>& locks() {
    static auto* map = new std::map<std::int64_t, pg::SessionLock>;
    return *map;
}

std::uint64_t id_of(FunctionCallInfo fcinfo) { return static_cast<std::uint64_t>(PG_GETARG_INT64(0)); }

}  // namespace

ZDM_FUNCTION(boundary_lock_take) {
    return pg::entry([&] {
        auto lock = pg::SessionLock::try_take(LockSpace::job, id_of(fcinfo));
        bool const taken = static_cast<bool>(lock);
        if (taken) {
            locks().insert_or_assign(PG_GETARG_INT64(0), std::move(lock));
        }
        return BoolGetDatum(taken);
    });
}

ZDM_FUNCTION(boundary_lock_hold) {
    return pg::entry([&] {
        return BoolGetDatum(locks().at(PG_GETARG_INT64(0)).hold_in_transaction());
    });
}

ZDM_FUNCTION(boundary_lock_reassert) {
    return pg::entry([&] {
        locks().at(PG_GETARG_INT64(0)).reassert();
        return Datum(0);
    });
}

ZDM_FUNCTION(boundary_lock_recover) {
    return pg::entry([&] { return BoolGetDatum(locks().at(PG_GETARG_INT64(0)).recover()); });
}

ZDM_FUNCTION(boundary_lock_release) {
    return pg::entry([&] { return BoolGetDatum(locks().erase(PG_GETARG_INT64(0)) == 1); });
}

ZDM_FUNCTION(boundary_lock_other) {
    return pg::entry([&] { return BoolGetDatum(pg::held_by_other(LockSpace::job, id_of(fcinfo))); });
}

// lock_try(id, mode): transaction-level, mode as in lockdefs.h.
ZDM_FUNCTION(boundary_lock_try) {
    return pg::entry([&] { return BoolGetDatum(pg::try_lock(LockSpace::job, id_of(fcinfo), PG_GETARG_INT32(1))); });
}
