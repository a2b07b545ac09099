#include "pg/lock.hpp"

#include <utility>

#include "pg/postgres.hpp"

namespace zdm::pg {

LOCKTAG lock_tag(LockSpace space, std::uint64_t id) noexcept {
    LOCKTAG tag;
    SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(id >> 32), static_cast<uint32>(id),
                         static_cast<uint16>(space));
    return tag;
}

bool try_lock(LockSpace space, std::uint64_t id, LOCKMODE mode) {
    LOCKTAG const tag = lock_tag(space, id);
    return guard([&] { return LockAcquire(&tag, mode, false, true) != LOCKACQUIRE_NOT_AVAIL; });
}

void lock(LockSpace space, std::uint64_t id, LOCKMODE mode) {
    LOCKTAG const tag = lock_tag(space, id);
    guard([&] { (void)LockAcquire(&tag, mode, false, false); });
}

bool held_by_other(LockSpace space, std::uint64_t id) {
    LOCKTAG const tag = lock_tag(space, id);
    return guard([&] {
        // A probe conflicts with the runner's mode alone, so probes never disturb each other or a control function.
        if (LockAcquire(&tag, mode_probe, false, true) == LOCKACQUIRE_NOT_AVAIL) {
            return true;
        }
        LockRelease(&tag, mode_probe, false);
        return false;
    });
}

bool kept_by_other(LockSpace space, std::uint64_t id) {
    LOCKTAG const tag = lock_tag(space, id);
    return guard([&] {
        int count = 0;
        (void)GetLockConflicts(&tag, mode_run, &count);
        return count > 0;
    });
}

SessionLock::SessionLock(SessionLock&& other) noexcept
    : space_(other.space_), id_(other.id_), held_(std::exchange(other.held_, false)) {}

SessionLock& SessionLock::operator=(SessionLock&& other) noexcept {
    if (this != &other) {
        release();
        space_ = other.space_;
        id_ = other.id_;
        held_ = std::exchange(other.held_, false);
    }
    return *this;
}

SessionLock SessionLock::try_take(LockSpace space, std::uint64_t id) {
    SessionLock result;
    result.space_ = space;
    result.id_ = id;
    LOCKTAG const tag = lock_tag(space, id);
    result.held_ = guard([&] {
        if (LockAcquire(&tag, mode_run, true, true) != LOCKACQUIRE_NOT_AVAIL) {
            return true;
        }
        // Somebody is there. A probe lasts microseconds: wait for it. Another runner does not go away.
        for (int i = 0; i < 20; ++i) {
            if (LockAcquire(&tag, mode_probe, false, true) == LOCKACQUIRE_NOT_AVAIL) {
                return false;
            }
            LockRelease(&tag, mode_probe, false);
            pg_usleep(500);
            if (LockAcquire(&tag, mode_run, true, true) != LOCKACQUIRE_NOT_AVAIL) {
                return true;
            }
        }
        return false;
    });
    return result;
}

bool SessionLock::hold_in_transaction() {
    LOCKTAG const tag = lock_tag(space_, id_);
    return guard([&] { return LockAcquire(&tag, mode_run, false, true) != LOCKACQUIRE_NOT_AVAIL; });
}

void SessionLock::reassert() {
    LOCKTAG const tag = lock_tag(space_, id_);
    guard([&] {
        // The transaction's hold keeps the lock itself; only the session's share is counted anew. LockRelease warns
        // in the server's log when user code had given it away.
        (void)LockRelease(&tag, mode_run, true);
        (void)LockAcquire(&tag, mode_run, true, false);
    });
}

bool SessionLock::recover() {
    LOCKTAG const tag = lock_tag(space_, id_);
    held_ = guard([&] {
        if (compat::lock_held_by_me(&tag, mode_run)) {
            return true;
        }
        return LockAcquire(&tag, mode_run, true, true) != LOCKACQUIRE_NOT_AVAIL;
    });
    return held_;
}

void SessionLock::release() noexcept {
    if (!held_) {
        return;
    }
    held_ = false;
    LOCKTAG const tag = lock_tag(space_, id_);
    try {
        guard([&] { (void)LockRelease(&tag, mode_run, true); });
    } catch (...) {
    }
}

}  // namespace zdm::pg
