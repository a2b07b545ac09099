// The prototype of the riskiest part: one background worker that runs hostile SQL of a user and bookkeeping of ours in
// the same transaction. `mode` takes one precaution away, to show that the attack is one.
#include "boundary.hpp"

#include <cstring>
#include <fstream>
#include <optional>

#include <fmt/format.h>

#include "pg/export.hpp"
#include "pg/identity.hpp"
#include "pg/latch.hpp"
#include "pg/lock.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace pg = zdm::pg;
namespace core = zdm::core;

namespace {

// What bgw_extra carries.
struct Order {
    Oid database;
    Oid session;
    Oid role;
    std::int64_t task;
};
static_assert(sizeof(Order) <= BGW_EXTRALEN);

struct Task {
    std::string path;
    std::string sql;
    std::string mode;
    int batches = 1;
};

std::string name_of(Oid role) {
    const char* name = pg::guard([&] { return GetUserNameFromId(role, true); });
    return name == nullptr ? std::to_string(role) : name;
}

// SET ROLE, for the life of the session.
void set_role(Oid role) {
    pg::Transaction transaction;
    std::string const name = name_of(role);
    pg::guard([&] {
        (void)set_config_option("role", name.c_str(), superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
                                GUC_ACTION_SET, true, 0, false);
    });
    transaction.commit();
}

Task read_task(std::int64_t id) {
    pg::Transaction transaction;
    Task task;
    {
        pg::Bookkeeping bookkeeping;
        pg::Spi spi;
        auto const rows = pg::query("SELECT path, sql, mode, batches FROM boundary.task WHERE task = $1::bigint",
                                    {pg::text(id)});
        auto const& row = rows.front();
        task = {pg::as_string(row[0]), pg::as_string(row[1]), pg::as_string(row[2]),
                static_cast<int>(pg::as_int(row[3]))};
    }
    transaction.commit();
    return task;
}

void end_task(std::int64_t id, const core::Failure& failure) {
    pg::Transaction transaction;
    {
        pg::Bookkeeping bookkeeping;
        pg::Spi spi;
        pg::query(
            "UPDATE boundary.task SET ended = true, sqlstate = $2, message = $3, detail = $4, hint = $5, context = $6 "
            "WHERE task = $1::bigint",
            {pg::text(id), pg::text(failure.sqlstate), pg::text(failure.message), pg::text(failure.detail),
             pg::text(failure.hint), pg::text(failure.context)});
    }
    transaction.commit();
}

// Switches the user and nothing else: what Bookkeeping must not be.
class NaiveSwitch {
  public:
    NaiveSwitch() {
        GetUserIdAndSecContext(&user_, &security_context_);
        SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, security_context_);
    }
    ~NaiveSwitch() { SetUserIdAndSecContext(user_, security_context_); }

  private:
    Oid user_;
    int security_context_;
};

constexpr const char* probe = "SELECT (40::bigint + 2::integer)::text";

void batch(const Order& order, const Task& task, pg::SessionLock& lock) {
    pg::Transaction transaction;
    std::string seen_by_user;
    if (!lock.hold_in_transaction()) {
        throw pg::Error(ERRCODE_INTERNAL_ERROR, "another process has the worker's lock");
    }
    {
        std::optional<pg::AsRole> as;
        if (task.mode != "set role only") {
            as.emplace(order.role);
        }
        pg::set_local("search_path", task.path.c_str());
        pg::Spi spi;
        pg::query_once(task.sql);
        if (task.mode == "probe") {
            seen_by_user = pg::as_string(pg::query(probe).front().front());
        }
        if (task.mode != "no force" && task.mode != "no force, commit as session") {
            pg::force_deferred();
        }
    }
    boundary::witness("between");
    {
        std::optional<pg::Bookkeeping> safe;
        std::optional<NaiveSwitch> naive;
        if (task.mode == "naive switch") {
            naive.emplace();
        } else {
            safe.emplace();
        }
        pg::Spi spi;
        std::string const seen_by_us = pg::as_string(pg::query(probe).front().front());
        Oid user = InvalidOid;
        int flags = 0;
        GetUserIdAndSecContext(&user, &flags);
        bool const restricted = (flags & SECURITY_RESTRICTED_OPERATION) != 0;
        auto const rows = pg::query(
            "UPDATE boundary.ledger SET n = n + 1, seen = $2 || '/' || $3, "
            "  extensions = (SELECT count(*) FROM pg_extension), xid = pg_current_xact_id(), "
            "  who = concat_ws(' ', current_user, $4, current_setting('search_path')), first_at = coalesce(first_at, now()), last_at = now() "
            "WHERE task = $1::bigint AND n = n",
            {pg::text(order.task), pg::text(seen_by_user), pg::text(seen_by_us),
             restricted ? pg::text("restricted") : std::nullopt});
        if (rows.processed != 1) {
            throw pg::Error(ERRCODE_INTERNAL_ERROR, fmt::format("the ledger lost {} rows", 1 - rows.processed));
        }
    }
    lock.reassert();
    if (task.mode == "commit as session" || task.mode == "no force, commit as session") {
        transaction.commit();
    } else {
        pg::AsRole as(order.role);
        transaction.commit();
    }
    LOCKTAG const tag = pg::lock_tag(pg::LockSpace::job, lock.id());
    boundary::witness(zdm::compat::lock_held_by_me(&tag, pg::mode_run) ? "lock kept" : "lock lost");
    boundary::witness(lock.recover() ? "lock recovered" : "lock gone");
}

void work(const Order& order) {
    set_role(order.role);
    auto lock = pg::SessionLock::try_take(pg::LockSpace::job, static_cast<std::uint64_t>(order.task));
    if (!lock) {
        throw pg::Error(ERRCODE_LOCK_NOT_AVAILABLE, "somebody else runs this task");
    }
    Task const task = read_task(order.task);
    core::Failure failure;
    try {
        for (int i = 0; i < task.batches; ++i) {
            batch(order, task, lock);
            pg::wait_latch(2);
        }
    } catch (...) {
        failure = pg::current_failure();
        boundary::witness(lock.recover() ? "lock recovered" : "lock gone");
    }
    end_task(order.task, failure);
}

}  // namespace

void boundary::witness(const std::string& what) {
    int flags = 0;
    Oid user = InvalidOid;
    GetUserIdAndSecContext(&user, &flags);
    Oid const session = GetSessionUserId();
    // Outside a transaction the catalogs cannot be read: numbers will do.
    bool const names = IsTransactionState();
    bool const super = names && pg::guard([] { return superuser(); });
    std::ofstream file(fmt::format("zdm_boundary_{}.txt", current_task), std::ios::app);
    file << fmt::format("{}|{}|{}|{}|{}|{}\n", what, names ? name_of(user) : std::to_string(user),
                        names ? name_of(session) : std::to_string(session), super ? "superuser" : "plain",
                        (flags & SECURITY_LOCAL_USERID_CHANGE) != 0 ? "local" : "",
                        (flags & SECURITY_RESTRICTED_OPERATION) != 0 ? "restricted" : "");
}

// witness(what): user code says who it is.
ZDM_FUNCTION(boundary_witness) {
    return pg::entry([&] {
        boundary::witness(boundary::argument(fcinfo, 0));
        return Datum(0);
    });
}

ZDM_EXPORT void zdm_boundary_worker(Datum) {
    Order order;
    std::memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof order);
    boundary::current_task = order.task;
    pg::entry([&] {
        pg::guard([&] {
            pqsignal(SIGTERM, die);
            pqsignal(SIGINT, StatementCancelHandler);
            BackgroundWorkerUnblockSignals();
            BackgroundWorkerInitializeConnectionByOid(order.database, order.session, 0);
        });
        work(order);
    });
}

// run_worker(task, session, role): runs the worker to its end.
ZDM_FUNCTION(boundary_run_worker) {
    return pg::entry([&] {
        Order const order{MyDatabaseId, PG_GETARG_OID(1), PG_GETARG_OID(2), PG_GETARG_INT64(0)};
        BackgroundWorker worker;
        std::memset(&worker, 0, sizeof worker);
        worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
        worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
        worker.bgw_restart_time = BGW_NEVER_RESTART;
        worker.bgw_notify_pid = MyProcPid;
        strlcpy(worker.bgw_name, "zdm boundary", BGW_MAXLEN);
        strlcpy(worker.bgw_type, "zdm boundary", BGW_MAXLEN);
        std::strcpy(worker.bgw_library_name, "zdm_boundary");
        std::strcpy(worker.bgw_function_name, "zdm_boundary_worker");
        std::memcpy(worker.bgw_extra, &order, sizeof order);
        pg::guard([&] {
            BackgroundWorkerHandle* handle = nullptr;
            if (!RegisterDynamicBackgroundWorker(&worker, &handle)) {
                elog(ERROR, "no background worker slot is free");
            }
            (void)WaitForBackgroundWorkerShutdown(handle);
        });
        return Datum(0);
    });
}
