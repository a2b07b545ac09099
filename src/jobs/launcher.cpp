#include "jobs/launcher.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/backoff.hpp"
#include "jobs/settings.hpp"
#include "jobs/spawn.hpp"
#include "jobs/store.hpp"
#include "pg/export.hpp"
#include "pg/identity.hpp"
#include "pg/latch.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

namespace {

// Shared memory of the launcher: only there when the library was preloaded.
struct LauncherState {
    volatile int pid;
    volatile bool slot_wanted;
    // What a scout found: session roles with work to do. Read when the scout has ended. More than fit are not lost: a
    // runner that finds work of other roles starts their runners itself.
    int roles;
    Oid role[16];
};
LauncherState* state = nullptr;

shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;

void request_memory() {
    if (previous_request_hook != nullptr) {
        previous_request_hook();
    }
    RequestAddinShmemSpace(MAXALIGN(sizeof(LauncherState)));
}

void attach_memory() {
    if (previous_startup_hook != nullptr) {
        previous_startup_hook();
    }
    LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
    bool found = false;
    state = static_cast<LauncherState*>(ShmemInitStruct("zdm_ext launcher", sizeof(LauncherState), &found));
    if (!found) {
        state->pid = 0;
        state->slot_wanted = false;
        state->roles = 0;
    }
    LWLockRelease(AddinShmemInitLock);
}

void describe(BackgroundWorker& worker, const char* main, const char* name) {
    std::memset(&worker, 0, sizeof worker);
    worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker.bgw_start_time = BgWorkerStart_RecoveryFinished;  // at server start, and at promotion
    std::snprintf(worker.bgw_library_name, sizeof worker.bgw_library_name, "zdm_ext");
    std::snprintf(worker.bgw_function_name, sizeof worker.bgw_function_name, "%s", main);
    std::snprintf(worker.bgw_name, sizeof worker.bgw_name, "%s", name);
    std::snprintf(worker.bgw_type, sizeof worker.bgw_type, "%s", name);
}

std::vector<Oid> databases() {
    struct List {
        Oid* oids;
        int count;
    };
    pg::Transaction transaction;
    List const list = pg::guard([] {
        List found{static_cast<Oid*>(palloc(sizeof(Oid) * 16)), 0};
        int room = 16;
        Relation relation = table_open(DatabaseRelationId, AccessShareLock);
        TableScanDesc scan = table_beginscan_catalog(relation, 0, nullptr);
        while (HeapTuple tuple = heap_getnext(scan, ForwardScanDirection)) {
            auto* form = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
            if (!form->datallowconn || form->datistemplate) {
                continue;
            }
            if (found.count == room) {
                room *= 2;
                found.oids = static_cast<Oid*>(repalloc(found.oids, sizeof(Oid) * static_cast<Size>(room)));
            }
            found.oids[found.count++] = form->oid;
        }
        table_endscan(scan);
        table_close(relation, AccessShareLock);
        return found;
    });
    std::vector<Oid> result(list.oids, list.oids + list.count);
    transaction.commit();
    return result;
}

// One process looks into one database; when it has ended, so that its slot is free for one of them, the runners that
// the database needs are started. False: no slot.
bool scout(Oid database) {
    state->roles = 0;
    bool const looked = pg::guard([&] {
        BackgroundWorker worker;
        describe(worker, "zdm_scout_main", "zdm_ext scout");
        worker.bgw_restart_time = BGW_NEVER_RESTART;
        worker.bgw_notify_pid = MyProcPid;
        std::memcpy(worker.bgw_extra, &database, sizeof database);
        BackgroundWorkerHandle* handle = nullptr;
        if (!RegisterDynamicBackgroundWorker(&worker, &handle)) {
            return false;
        }
        if (WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED) {
            proc_exit(1);
        }
        pfree(handle);
        return true;
    });
    bool started = looked;
    for (int i = 0; i < state->roles && started; ++i) {
        started = start_runner(database, state->role[i]);
    }
    return started;
}

void forget_launcher(int, Datum) { state->pid = 0; }

void launcher_loop() {
    int attempt = 0;
    bool look = true;
    Oid first = InvalidOid;  // the database that found no slot last time is looked at first this time
    for (;;) {
        if (look && enabled()) {
            state->slot_wanted = false;
            std::vector<Oid> list = databases();
            if (auto const place = std::find(list.begin(), list.end(), first); place != list.end()) {
                std::rotate(list.begin(), place, list.end());
            }
            for (Oid database : list) {
                if (!scout(database)) {
                    state->slot_wanted = true;
                    first = database;
                    break;
                }
            }
        }
        if (state->slot_wanted) {
            // Jobs wait for a slot: try again, less and less often.
            auto const pause = core::backoff_delay(core::Verdict::retry_slow, ++attempt, 1.0).count();
            pg::wait_latch(std::min<std::int64_t>(pause, 30'000));
            look = true;
            continue;
        }
        attempt = 0;
        bool const was_enabled = enabled();
        pg::wait_latch(-1);
        look = state->slot_wanted || enabled() != was_enabled;
        if (state->slot_wanted) {
            pg::wait_latch(500);  // the process that had no room is just going
        }
    }
}

}  // namespace

void register_launcher() {
    if (!process_shared_preload_libraries_in_progress) {
        return;
    }
    previous_request_hook = shmem_request_hook;
    shmem_request_hook = request_memory;
    previous_startup_hook = shmem_startup_hook;
    shmem_startup_hook = attach_memory;
    pg::guard([] {
        BackgroundWorker worker;
        describe(worker, "zdm_launcher_main", "zdm_ext launcher");
        worker.bgw_restart_time = 5;
        RegisterBackgroundWorker(&worker);
    });
}

void launcher_slot_wanted() noexcept {
    if (state == nullptr) {
        return;
    }
    state->slot_wanted = true;
    int const pid = state->pid;
    for (uint32 i = 0; pid != 0 && i < compat::proc_count(); ++i) {
        if (ProcGlobal->allProcs[i].pid == pid) {
            SetLatch(&ProcGlobal->allProcs[i].procLatch);
        }
    }
}

namespace {

void launcher_main() {
    pg::guard([] {
        pqsignal(SIGTERM, die);
        pqsignal(SIGHUP, SignalHandlerForConfigReload);
        BackgroundWorkerUnblockSignals();
        BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
        state->pid = MyProcPid;
        before_shmem_exit(forget_launcher, 0);
    });
    launcher_loop();
}

void scout_main() {
    Oid database;
    std::memcpy(&database, MyBgworkerEntry->bgw_extra, sizeof database);
    pg::guard([&] {
        pqsignal(SIGTERM, die);
        BackgroundWorkerUnblockSignals();
        BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
        compat::set_session_defaults();
    });
    pg::Transaction transaction;
    if (OidIsValid(pg::find_extension().oid)) {
        pg::Spi spi;
        pg::Bookkeeping as_extension;
        auto const roles = pg::query(
            "SELECT j.session_role FROM zdm.job j JOIN zdm.job_run r USING (job_id)"
            " JOIN zdm.job_control c USING (job_id) JOIN pg_authid a ON a.oid = j.session_role"
            " WHERE r.state IN ('queued', 'running') AND c.request <> 'pause' AND j.home = $1 AND a.rolcanlogin"
            "  AND NOT zdm._job_alive(j.job_id)"
            " GROUP BY j.session_role ORDER BY min(j.job_id)",
            {pg::text(home())});
        for (const auto& row : roles.rows) {
            if (state->roles < static_cast<int>(lengthof(state->role))) {
                state->role[state->roles++] = pg::as_oid(row[0]);
            }
        }
    }
    transaction.commit();
}

}  // namespace
}  // namespace zdm::jobs

ZDM_EXPORT void zdm_launcher_main(Datum) {
    zdm::pg::entry([] { zdm::jobs::launcher_main(); });
}

ZDM_EXPORT void zdm_scout_main(Datum) {
    zdm::pg::entry([] { zdm::jobs::scout_main(); });
    proc_exit(0);
}
