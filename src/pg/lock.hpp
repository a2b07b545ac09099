// Heavyweight locks of our own kind. They are advisory locks whose fourth field SQL cannot produce, so no SQL
// function takes, probes or releases one by key. They show in pg_locks as locktype 'advisory'.
#pragma once

#include <cstdint>

#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::pg {

// The fourth field (pg_locks.objsubid); SQL uses 1 and 2.
enum class LockSpace : std::uint16_t {
    job = 0x5A01,     // id: job. A runner holds it ExclusiveLock while it works: that is what "alive" means
    slot = 0x5A02,    // id: 1..zdm.max_workers. One a runner process
    gate = 0x5A03,    // id: 0. Serialises the decisions of runners: claim, sleep, exit
    turn = 0x5A04,    // id: topmost relation. Jobs that disturb each other take turns
    keeper = 0x5A05,  // id: 0. The one runner that sleeps until the next timed job
};

// A runner's hold on a job, what a control function takes to change an idle job, and what a look at it takes.
inline constexpr LOCKMODE mode_run = ExclusiveLock;
inline constexpr LOCKMODE mode_control = ShareRowExclusiveLock;
inline constexpr LOCKMODE mode_probe = RowShareLock;

LOCKTAG lock_tag(LockSpace space, std::uint64_t id) noexcept;

// Transaction-level: released at the end of the transaction.
bool try_lock(LockSpace space, std::uint64_t id, LOCKMODE mode);
void lock(LockSpace space, std::uint64_t id, LOCKMODE mode);

// Is the lock held in ExclusiveLock by another process? Looks at one lock, waits for nothing.
bool held_by_other(LockSpace space, std::uint64_t id);

// Does a transaction of another process hold the lock in any mode that keeps mode_run out? Disturbs nobody.
bool kept_by_other(LockSpace space, std::uint64_t id);

// A session-level hold on one lock, given back with the object.
class SessionLock {
  public:
    SessionLock() = default;
    SessionLock(SessionLock&& other) noexcept;
    SessionLock& operator=(SessionLock&& other) noexcept;
    ~SessionLock() { release(); }

    // Takes the lock if no other process holds it in ExclusiveLock; waits at most for probes and control functions.
    static SessionLock try_take(LockSpace space, std::uint64_t id);

    explicit operator bool() const noexcept { return held_; }
    std::uint64_t id() const noexcept { return id_; }

    // pg_advisory_unlock_all() in user code gives session-level holds away. A transaction that runs user code
    // therefore holds the lock at its own level too, and reasserts the session's hold before it ends. False: another
    // process has the lock by now.
    [[nodiscard]] bool hold_in_transaction();
    void reassert();
    // After a commit (a deferred trigger may have run) or an abort: is the session's hold still there, or could it be
    // taken again?
    [[nodiscard]] bool recover();
    void release() noexcept;

  private:
    LockSpace space_ = LockSpace::job;
    std::uint64_t id_ = 0;
    bool held_ = false;
};

}  // namespace zdm::pg
