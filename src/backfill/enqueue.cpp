#include "backfill/backfill.hpp"
#include "jobs/kinds.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

void set_up() { jobs::register_kind({.name = "backfill", .run = run_backfill}); }

std::int64_t start_backfill(Oid relation, const Clauses& clauses, jobs::CommonArguments common) {
    jobs::check_caller();
    Compiled const compiled = compile(relation, clauses);
    check_privileges(compiled);
    return jobs::enqueue(jobs::NewJob{.kind = "backfill",
                                      .relation = relation,
                                      .relation_name = compiled.relation_name,
                                      .definition = {{"set", clauses.set}, {"where", clauses.where}},
                                      .statement = compiled.statement,
                                      .common = std::move(common)});
}

}  // namespace zdm::backfill
