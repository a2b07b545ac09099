#include "jobs/blockers.hpp"

#include <fmt/format.h>

#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

using pg::query;
using pg::text;

namespace {

std::string describe_process(int pid) {
    auto const rows = query(
        "SELECT format('pid %s (%s, %s for %s)', pid, coalesce(nullif(application_name, ''), backend_type),"
        "  coalesce(state, 'active'),"
        "  to_char(floor(extract(epoch FROM clock_timestamp() - CASE WHEN state LIKE 'idle%' THEN state_change"
        "                       ELSE coalesce(query_start, backend_start) END))::float8 * interval '1 s', 'HH24:MI:SS'))"
        " FROM pg_stat_activity WHERE pid = $1::integer",
        {text(pid)});
    return rows.empty() ? fmt::format("pid {}", pid) : pg::as_string(rows.front()[0]);
}

struct Holder {
    TransactionId xid;
    bool found;
};

// The transaction in progress that holds a tuple, from its xmax.
Holder tuple_holder(Oid relation_id, core::Tid tid) {
    return pg::guard([&] {
        Holder holder{InvalidTransactionId, false};
        Relation relation = try_relation_open(relation_id, NoLock);
        if (relation == nullptr) {
            return holder;
        }
        HeapTupleData tuple;
        ItemPointerSet(&tuple.t_self, tid.block, tid.offset);
        Buffer buffer = InvalidBuffer;
        if (tid.offset > 0 && tid.block < RelationGetNumberOfBlocks(relation) &&
            heap_fetch(relation, SnapshotAny, &tuple, &buffer, false)) {
            TransactionId const xmax = HeapTupleHeaderGetRawXmax(tuple.t_data);
            uint16 const mask = tuple.t_data->t_infomask;
            ReleaseBuffer(buffer);
            if (TransactionIdIsValid(xmax) && (mask & HEAP_XMAX_INVALID) == 0) {
                TransactionId candidates[64];
                int count = 0;
                if ((mask & HEAP_XMAX_IS_MULTI) != 0) {
                    MultiXactMember* members = nullptr;
                    int const found = GetMultiXactIdMembers(xmax, &members, false, false);
                    for (int i = 0; i < found && count < 64; ++i) {
                        candidates[count++] = members[i].xid;
                    }
                } else {
                    candidates[count++] = xmax;
                }
                for (int i = 0; i < count && !holder.found; ++i) {
                    if (TransactionIdIsInProgress(candidates[i]) &&
                        !TransactionIdIsCurrentTransactionId(candidates[i])) {
                        holder = {SubTransGetTopmostTransaction(candidates[i]), true};
                    }
                }
            }
        }
        relation_close(relation, NoLock);
        return holder;
    });
}

std::string relation_text(Oid relation) {
    auto const rows = query("SELECT $1::oid::regclass::text", {text(relation)});
    return pg::as_string(rows.front()[0]);
}

}  // namespace

std::string relation_blocker(Oid relation) {
    // Granted locks that conflict with RowExclusiveLock, or, when it is the queue that we respect, who waits for one.
    auto const rows = query(
        "SELECT l.pid, l.mode FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = $1::oid"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
        " AND l.pid <> pg_backend_pid() ORDER BY l.granted DESC, l.mode, l.pid LIMIT 1",
        {text(relation)});
    if (rows.empty()) {
        return fmt::format("lock on {}: just released", relation_text(relation));
    }
    return fmt::format("{} on {}: {}", pg::as_string(rows.front()[1]), relation_text(relation),
                       describe_process(static_cast<int>(pg::as_int(rows.front()[0]))));
}

std::string row_blocker(Oid relation, core::Tid tid) {
    Holder const holder = tuple_holder(relation, tid);
    if (!holder.found) {
        return "";
    }
    std::string const what = fmt::format("row {} of {}", core::to_text(tid), relation_text(relation));
    auto const rows = query(
        "SELECT l.pid, p.gid FROM (SELECT $1::text::xid AS xid) x"
        " LEFT JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = x.xid AND l.granted"
        "   AND l.mode = 'ExclusiveLock'"
        " LEFT JOIN pg_prepared_xacts p ON p.transaction = x.xid LIMIT 1",
        {text(static_cast<std::int64_t>(holder.xid))});
    if (!rows.empty() && rows.front()[0]) {
        return fmt::format("{}: {}", what, describe_process(static_cast<int>(pg::as_int(rows.front()[0]))));
    }
    if (!rows.empty() && rows.front()[1]) {
        return fmt::format("{}: prepared transaction {}", what, pg::as_string(rows.front()[1]));
    }
    return fmt::format("{}: transaction {}", what, holder.xid);
}

}  // namespace zdm::jobs
