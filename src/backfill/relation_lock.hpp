// Locks on relations, asked for politely: taken at once or not at all, so that nobody queues behind a waiting job.
#pragma once

#include <string>

#include "pg/postgres.hpp"

namespace zdm::backfill {

// Somebody holds a conflicting lock on the relation, or queues for one.
struct RelationBusy {
    std::string by;  // for waiting_for
};

// Locks the relation and, in AccessShareLock, what is below it, until the end of the transaction. Throws RelationBusy.
// Needs an SPI connection.
void lock_at_once(Oid relation, LOCKMODE mode);

// The same for one relation alone.
void lock_leaf_at_once(Oid leaf, LOCKMODE mode);

}  // namespace zdm::backfill
