#include "backfill/batch.hpp"

#include <fmt/format.h>

#include "pg/postgres.hpp"

namespace zdm::backfill {

namespace {

// --- the plan ------------------------------------------------------------------------------------------------------

Oid planned_leaf = InvalidOid;
set_rel_pathlist_hook_type previous_hook = nullptr;
bool hook_installed = false;

// Leaves a leaf that is being updated by TID range with that one path. Where the relation has no TID range condition (a
// trigger's own UPDATE of the same table), its paths stay as they are.
void tid_range_only(PlannerInfo* root, RelOptInfo* relation, Index index, RangeTblEntry* entry) {
    if (previous_hook != nullptr) {
        previous_hook(root, relation, index, entry);
    }
    if (!OidIsValid(planned_leaf) || entry->relid != planned_leaf || root->parse->commandType == CMD_SELECT ||
        static_cast<Index>(root->parse->resultRelation) != index) {
        return;
    }
    List* const paths = relation->pathlist;
    List* const partial_paths = relation->partial_pathlist;
    bool const enabled = enable_tidscan;
    relation->pathlist = NIL;
    relation->partial_pathlist = NIL;
    enable_tidscan = true;
    compat::add_tid_paths(root, relation);
    enable_tidscan = enabled;
    if (relation->pathlist == NIL) {
        relation->pathlist = paths;
        relation->partial_pathlist = partial_paths;
    }
}

bool has_tid_range_scan(const Plan* plan) {
    if (plan == nullptr) {
        return false;
    }
    return IsA(plan, TidRangeScan) || has_tid_range_scan(plan->lefttree) || has_tid_range_scan(plan->righttree);
}

// A condition that the planner knows to be false (a = NULL; IS NULL on a NOT NULL column): nothing is read at all.
bool reads_nothing(const Plan* plan) {
    if (plan != nullptr && IsA(plan, ModifyTable)) {
        plan = plan->lefttree;
    }
    return plan != nullptr && IsA(plan, Result) && plan->lefttree == nullptr &&
           reinterpret_cast<const Result*>(plan)->resconstantqual != nullptr;
}

// --- counting what comes back --------------------------------------------------------------------------------------

// Receives one boolean a changed row. Nothing is kept, so a batch's memory does not grow with its rows.
struct MatchCounter {
    DestReceiver receiver;
    std::int64_t matching;
};

bool count_match(TupleTableSlot* slot, DestReceiver* self) {
    bool null = false;
    Datum const value = slot_getattr(slot, 1, &null);
    if (!null && DatumGetBool(value)) {
        ++reinterpret_cast<MatchCounter*>(self)->matching;
    }
    return true;
}
void start_counting(DestReceiver*, int, TupleDesc) {}
void stop_counting(DestReceiver*) {}

}  // namespace

BatchPlans::BatchPlans(Compiled compiled) : compiled_(std::move(compiled)) {
    if (!hook_installed) {
        previous_hook = set_rel_pathlist_hook;
        set_rel_pathlist_hook = tid_range_only;
        hook_installed = true;
    }
}

BatchPlans::~BatchPlans() {
    planned_leaf = InvalidOid;
    for (auto& [leaf, plan] : plans_) {
        SPI_freeplan(plan);
    }
}

SPIPlanPtr BatchPlans::plan(Oid leaf) {
    auto found = plans_.find(leaf);
    if (found == plans_.end()) {
        std::string const sql = batch_statement(compiled_, leaf);
        const char* raw = sql.c_str();
        SPIPlanPtr made = pg::guard([&] {
            Oid types[2] = {TIDOID, TIDOID};
            SPIPlanPtr prepared = SPI_prepare_cursor(raw, 2, types, CURSOR_OPT_GENERIC_PLAN);
            if (prepared == nullptr) {
                elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
            }
            SPI_keepplan(prepared);
            return prepared;
        });
        found = plans_.emplace(leaf, made).first;
        names_[leaf] = quoted_name(leaf);
    }
    return found->second;
}

bool BatchPlans::renamed(Oid leaf) const {
    auto const known = names_.find(leaf);
    return known != names_.end() && known->second != quoted_name(leaf);
}

BatchResult BatchPlans::execute(Oid leaf, std::int64_t from, std::int64_t to) {
    // Also when the server plans anew inside the execution (statistics changed), the hook knows the leaf.
    planned_leaf = leaf;
    SPIPlanPtr const prepared = plan(leaf);
    core::Tid const first = core::from_position(from, positions_per_block);
    core::Tid const last = core::from_position(to, positions_per_block);
    BatchResult result;
    bool const by_tid_range = pg::guard([&] {
        CachedPlan* cached = SPI_plan_get_cached_plan(prepared);
        if (cached == nullptr) {
            return false;
        }
        bool found = false;
        if (list_length(cached->stmt_list) == 1) {
            const Plan* const tree = linitial_node(PlannedStmt, cached->stmt_list)->planTree;
            found = has_tid_range_scan(tree) || reads_nothing(tree);
        }
        ReleaseCachedPlan(cached, CurrentResourceOwner);
        return found;
    });
    if (!by_tid_range) {
        throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED,
                        fmt::format("the batches on {} cannot be planned as TID range scans", quoted_name(leaf)))
            .detail("Another plan would read the whole table once a batch.")
            .hint("Simplify the clauses: sub-selects that join the table to others may be in the way.");
    }
    pg::guard([&] {
        ItemPointerData tids[2];
        ItemPointerSet(&tids[0], first.block, first.offset);
        ItemPointerSet(&tids[1], last.block, last.offset);
        ParamListInfo parameters = makeParamList(2);
        for (int i = 0; i < 2; ++i) {
            parameters->params[i].value = PointerGetDatum(&tids[i]);
            parameters->params[i].isnull = false;
            parameters->params[i].pflags = PARAM_FLAG_CONST;
            parameters->params[i].ptype = TIDOID;
        }
        MatchCounter counter{};
        counter.receiver.receiveSlot = count_match;
        counter.receiver.rStartup = start_counting;
        counter.receiver.rShutdown = stop_counting;
        counter.receiver.rDestroy = stop_counting;
        counter.receiver.mydest = DestNone;
        SPIExecuteOptions options{};
        options.params = parameters;
        options.dest = &counter.receiver;
        int const code = SPI_execute_plan_extended(prepared, &options);
        if (code < 0) {
            elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(code));
        }
        result.changed = static_cast<std::int64_t>(SPI_processed);
        result.still_matching = counter.matching;
    });
    return result;
}

}  // namespace zdm::backfill
