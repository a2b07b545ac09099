// Giving way, as autovacuum does: a process that carries the server's mark of an autovacuum worker is cancelled by whoever
// waits for a lock of it longer than deadlock_timeout, and DROP DATABASE, ALTER DATABASE and CREATE DATABASE TEMPLATE end
// it instead of failing.
#pragma once

namespace zdm::pg {

// Carries the mark from now on, or no longer.
void give_way(bool on) noexcept;

// For the life of a transaction that runs queries: without the mark. CREATE INDEX CONCURRENTLY does not wait for the
// snapshots of processes that carry it, so a query of ours could read through an index that lacks what it should see.
class StandFirm {
  public:
    StandFirm() noexcept;
    ~StandFirm();
    StandFirm(const StandFirm&) = delete;
    StandFirm& operator=(const StandFirm&) = delete;

  private:
    bool gave_way_;
};

// Does somebody hold a lock on this database that keeps new sessions out, because all are to leave it?
// To be asked between transactions: a process that is always busy would have the mark for microseconds only.
bool database_wanted();

}  // namespace zdm::pg
