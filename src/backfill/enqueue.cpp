#include "backfill/backfill.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "jobs/blockers.hpp"
#include "jobs/kinds.hpp"
#include "jobs/settings.hpp"
#include "pg/identity.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

void set_up() { jobs::register_kind({.name = "backfill", .run = run_backfill}); }

namespace {

// Checking a statement takes the lock that it would need. Whoever calls waits for it no longer than zdm.lock_timeout: the
// call promises to return at once, and a migration file must not hang behind somebody's open transaction.
Compiled compile_in_time(Oid relation, const Clauses& clauses) {
    std::string const name = quoted_name(relation);
    std::string blocker;
    if (!pg::guard([&] { return ConditionalLockRelationOid(relation, RowExclusiveLock); })) {
        pg::Spi spi;
        pg::Bookkeeping as_extension;
        blocker = jobs::relation_blocker(relation);
    }
    int const limit = LockTimeout > 0 ? std::min(LockTimeout, jobs::lock_timeout_ms()) : jobs::lock_timeout_ms();
    pg::ScopedSetting const wait("lock_timeout", fmt::format("{}", limit).c_str());
    try {
        Compiled compiled = compile(relation, clauses);
        check_privileges(compiled);
        return compiled;
    } catch (const pg::PgError& error) {
        if (error.sqlerrcode() != ERRCODE_LOCK_NOT_AVAILABLE) {
            throw;
        }
    }
    throw pg::Error(ERRCODE_LOCK_NOT_AVAILABLE,
                    fmt::format("{} is locked: the backfill could not be checked within {} ms", name, limit))
        .detail(blocker)
        .hint("Nothing was enqueued. Try again when that transaction has ended, or raise zdm.lock_timeout.");
}

}  // namespace

std::int64_t start_backfill(Oid relation, const Clauses& clauses, jobs::CommonArguments common) {
    jobs::check_caller();
    Compiled const compiled = compile_in_time(relation, clauses);
    return jobs::enqueue(jobs::NewJob{.kind = "backfill",
                                      .relation = relation,
                                      .relation_name = compiled.relation_name,
                                      .definition = {{"set", clauses.set}, {"where", clauses.where}},
                                      .statement = compiled.statement,
                                      .common = std::move(common)});
}

}  // namespace zdm::backfill
