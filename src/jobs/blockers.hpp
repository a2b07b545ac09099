// Who is in the way, in words for zdm.jobs.waiting_for. Needs an SPI connection and the identity of pg::Bookkeeping.
#pragma once

#include <string>

#include "core/positions.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

// 'AccessExclusiveLock on orders: pid 4711 (psql, idle in transaction for 00:12:31)'. For a batch's RowExclusiveLock.
std::string relation_blocker(Oid relation);

// 'row (12,4) of orders: pid 4711 (psql, idle in transaction for 00:12:31)'; "" when nobody holds it any more.
std::string row_blocker(Oid relation, core::Tid tid);

}  // namespace zdm::jobs
