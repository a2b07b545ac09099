#include "pg/latch.hpp"

#include <csignal>
#include <cstring>

#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::pg {

void process_config_reload() {
    // An ordinary session reads it between two statements by itself.
    if (ConfigReloadPending && MyBgworkerEntry != nullptr) {
        ConfigReloadPending = false;
        guard([] { ProcessConfigFile(PGC_SIGHUP); });
    }
}

void wait_latch(std::int64_t ms) {
    guard([&] {
        int const events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (ms >= 0 ? WL_TIMEOUT : 0);
        (void)WaitLatch(MyLatch, events, static_cast<long>(ms), PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    });
    process_config_reload();
}

void wake_workers() noexcept {
    for (uint32 i = 0; i < compat::proc_count(); ++i) {
        PGPROC* proc = &ProcGlobal->allProcs[i];
        if (proc->pid != 0 && proc->databaseId == MyDatabaseId && compat::is_background_worker(proc)) {
            SetLatch(&proc->procLatch);
        }
    }
}

bool worker_present(const char* type) noexcept {
    for (uint32 i = 0; i < compat::proc_count(); ++i) {
        const PGPROC* proc = &ProcGlobal->allProcs[i];
        int const pid = proc->pid;
        if (pid != 0 && proc->databaseId == MyDatabaseId && compat::is_background_worker(proc)) {
            const char* const found = GetBackgroundWorkerTypeByPid(pid);
            if (found != nullptr && std::strcmp(found, type) == 0) {
                return true;
            }
        }
    }
    return false;
}

bool interrupt_worker(int pid) noexcept {
    for (uint32 i = 0; i < compat::proc_count(); ++i) {
        PGPROC* proc = &ProcGlobal->allProcs[i];
        if (proc->pid == pid && pid != 0 && proc->databaseId == MyDatabaseId && compat::is_background_worker(proc)) {
            return kill(pid, SIGINT) == 0;
        }
    }
    return false;
}

}  // namespace zdm::pg
