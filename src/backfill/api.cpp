// backfill: what SQL calls. Decode, call, encode, nothing else.
#include "backfill/backfill.hpp"
#include "core/options.hpp"
#include "jobs/arguments.hpp"
#include "pg/export.hpp"
#include "pg/postgres.hpp"

using namespace zdm;

namespace {

// name, the options of pace, depends_on, paused: what every enqueuing call takes, from `place` on.
jobs::CommonArguments common_arguments(FunctionCallInfo fcinfo, int place) {
    int const options = static_cast<int>(core::options().size());
    jobs::CommonArguments common;
    common.name = jobs::text_argument(fcinfo, place);
    common.options = jobs::option_arguments(fcinfo, place + 1);
    common.depends_on = jobs::bigint_array_argument(fcinfo, place + 1 + options, "depends_on");
    common.paused = !PG_ARGISNULL(place + 2 + options) && PG_GETARG_BOOL(place + 2 + options);
    return common;
}

}  // namespace

ZDM_FUNCTION(zdm_start_backfill) {
    return pg::entry([&]() -> Datum {
        Oid const relation = jobs::required_relation(fcinfo, 0, "relation");
        backfill::Clauses clauses;
        clauses.set = jobs::required_text(fcinfo, 1, "set_clause");
        clauses.where = jobs::text_argument(fcinfo, 2);
        PG_RETURN_INT64(backfill::start_backfill(relation, clauses, common_arguments(fcinfo, 3)));
    });
}
