// What a running job sees of the engine: its definition, its transactions, and the requests it has to obey.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/job_state.hpp"
#include "jobs/store.hpp"
#include "pg/give_way.hpp"
#include "pg/identity.hpp"
#include "pg/lock.hpp"
#include "pg/transaction.hpp"

namespace zdm::jobs {

// Thrown by a job's transaction when the job has to stop; flies to the runner.
enum class StopReason {
    paused,     // zdm.pause
    cancelled,  // zdm.cancel
    held,       // zdm.pause_all, zdm.enabled
    lost,       // another process took the job
    gone,       // the extension is gone: nothing is left to record
};
struct Stopped {
    StopReason reason;
};

// The locks that a runner holds for a job.
struct Holds {
    pg::SessionLock slot;
    pg::SessionLock job;
    pg::SessionLock turn;

    // pg::SessionLock's, for all of them. False: another process has one of them by now.
    [[nodiscard]] bool hold_in_transaction();
    void reassert();
    [[nodiscard]] bool recover();
};

class JobContext {
  public:
    JobContext(Job job, Holds& holds, Oid job_table);

    const Job& job() const { return job_; }
    std::int64_t id() const { return job_.id; }
    pg::Text definition(std::string_view key) const;
    std::string option(std::string_view name) const;

    // Writes job_run: in a transaction of its own.
    void set_phase(std::string_view phase);
    void set_waiting(const std::string& waiting_for);  // empty: nothing holds the job
    void log(std::string_view event, std::string_view message);

    // Sleeps up to `ms`, ends early when somebody wakes the runner. Raises Stopped at the next transaction.
    void sleep(std::int64_t ms);

  private:
    friend class WorkTransaction;
    void between_transactions();
    Job job_;
    Holds& holds_;
    Oid job_table_;
    std::string waiting_for_;
    int max_workers_;  // as it was when we last looked
};

// One transaction of a running job. Its construction obeys requests (throws Stopped) and reads changed options; user
// SQL runs between as_role() scopes; bookkeeping in pg::Bookkeeping scopes.
class WorkTransaction {
  public:
    explicit WorkTransaction(JobContext& context);

    // Runs what user code deferred, as the job's role. Before the last bookkeeping of a transaction that ran user SQL.
    void force_deferred();
    // Commits with the job's role current, so that what user code deferred once more cannot run as anybody else.
    void commit();

  private:
    JobContext& context_;
    pg::StandFirm firm_;  // before the transaction takes its snapshot, until after its end
    pg::Transaction transaction_;
    std::optional<pg::Spi> spi_;
};

}  // namespace zdm::jobs
