#include "jobs/spawn.hpp"

#include <cstdio>
#include <cstring>

#include "jobs/launcher.hpp"
#include "pg/error.hpp"
#include "pg/latch.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

namespace {

// What this transaction asks for. Plain arrays: the commit callback must not allocate. More distinct roles or pids
// than fit are not lost: a runner that finds work of other roles starts their runners itself.
struct Pending {
    int roles = 0;
    Oid role[8];
    int pids = 0;
    int pid[8];
    bool wake = false;
};
Pending pending;

void at_transaction_end(XactEvent event, void*) {
    switch (event) {
        case XACT_EVENT_COMMIT: {
            Pending const todo = pending;
            pending = Pending{};
            pg::callback([&] {
                bool started = true;
                for (int i = 0; i < todo.roles; ++i) {
                    started = start_runner(MyDatabaseId, todo.role[i]) && started;
                }
                for (int i = 0; i < todo.pids; ++i) {
                    (void)pg::interrupt_worker(todo.pid[i]);
                }
                if (todo.wake || todo.roles > 0 || todo.pids > 0) {
                    pg::wake_workers();
                }
                if (!started && !pg::worker_present(runner_type)) {
                    // A runner that is there looks again before it goes.
                    ereport(WARNING,
                            (errmsg("no background worker slot is free: the job stays queued"),
                             errhint("It starts when a slot is free and any zdm call starts work, or by itself "
                                     "with shared_preload_libraries = 'zdm_ext'. Consider raising "
                                     "max_worker_processes.")));
                }
            });
            break;
        }
        case XACT_EVENT_ABORT:
            pending = Pending{};
            break;
        case XACT_EVENT_PRE_PREPARE:
            if (pending.roles > 0) {
                // Whoever runs COMMIT PREPARED need not have this library loaded, so nobody would start the runner.
                ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                                errmsg("cannot PREPARE a transaction that has enqueued or started a job"),
                                errhint("Call the zdm function in a transaction of its own.")));
            }
            pending = Pending{};
            break;
        default:
            break;
    }
}

}  // namespace

void register_spawn_callbacks() {
    pg::guard([] { RegisterXactCallback(at_transaction_end, nullptr); });
}

void request_runner(Oid session_role) {
    pending.wake = true;
    for (int i = 0; i < pending.roles; ++i) {
        if (pending.role[i] == session_role) {
            return;
        }
    }
    if (pending.roles < static_cast<int>(lengthof(pending.role))) {
        pending.role[pending.roles++] = session_role;
    }
}

void request_wake() { pending.wake = true; }

void request_interrupt(int pid) {
    if (pending.pids < static_cast<int>(lengthof(pending.pid))) {
        pending.pid[pending.pids++] = pid;
    }
}

bool start_runner(Oid database, Oid session_role) noexcept {
    BackgroundWorker worker;
    std::memset(&worker, 0, sizeof worker);
    worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
    // A restart time brings the worker back after a crash of the server, also without preload.
    worker.bgw_restart_time = runner_restart_s;
    std::snprintf(worker.bgw_library_name, sizeof worker.bgw_library_name, "zdm_ext");
    std::snprintf(worker.bgw_function_name, sizeof worker.bgw_function_name, "zdm_runner_main");
    std::snprintf(worker.bgw_name, sizeof worker.bgw_name, "zdm_ext runner for database %u", database);
    std::snprintf(worker.bgw_type, sizeof worker.bgw_type, "%s", runner_type);
    RunnerArguments const arguments{database, session_role};
    static_assert(sizeof arguments <= BGW_EXTRALEN);
    std::memcpy(worker.bgw_extra, &arguments, sizeof arguments);
    worker.bgw_notify_pid = 0;
    bool const registered = RegisterDynamicBackgroundWorker(&worker, nullptr);
    if (!registered) {
        launcher_slot_wanted();
    }
    return registered;
}

}  // namespace zdm::jobs
