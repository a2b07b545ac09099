#include "jobs/store.hpp"

#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/sqlstate.hpp"
#include "jobs/settings.hpp"
#include "jobs/spawn.hpp"
#include "pg/identity.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

using core::JobState;
using pg::query;
using pg::text;
using pg::Text;

namespace {

Pairs pairs_of(const pg::Rows& rows) {
    Pairs pairs;
    for (const auto& row : rows.rows) {
        pairs.emplace_back(pg::as_string(row[0]), row[1]);
    }
    return pairs;
}

// Jobs that wait for this one, all levels down, fail with it. One that a session holds is left to the next runner:
// nobody waits here for an open transaction.
void fail_dependents(std::int64_t job_id, std::string_view why) {
    auto const dependents = query(
        "SELECT j.job_id, j.session_role FROM zdm.job j JOIN zdm.job_run r USING (job_id)"
        " WHERE j.depends_on @> ARRAY[$1::bigint] AND r.state = 'queued' ORDER BY j.job_id",
        {text(job_id)});
    for (const auto& row : dependents.rows) {
        std::int64_t const dependent = pg::as_int(row[0]);
        if (query("SELECT FROM zdm.job_run WHERE job_id = $1::bigint AND state = 'queued' FOR UPDATE SKIP LOCKED",
                  {text(dependent)})
                .empty()) {
            request_runner(pg::as_oid(row[1]));
            continue;
        }
        Move move{.to = JobState::failed,
                  .event = "failed",
                  .message = fmt::format("job {}, which it depends on, {}", job_id, why),
                  .error = core::Failure{std::string(core::sqlstate::job_failed_dependency),
                                         fmt::format("job {} depends on job {}, which {}", dependent, job_id, why), "",
                                         fmt::format("SELECT zdm.retry({}) revives both.", job_id), ""},
                  .retry_after_ms = {},
                  .waiting_for = {}};
        query("UPDATE zdm.job_run SET failed_dependency = $2::bigint WHERE job_id = $1::bigint",
              {text(dependent), text(job_id)});
        move_job(dependent, JobState::queued, move);
    }
}

}  // namespace

void keep_out_of_decoding() {
    pg::Extension const extension = pg::find_extension();
    if (extension.undecoded || !pg::guard([&] { return superuser_arg(extension.owner); })) {
        return;
    }
    query(
        "UPDATE pg_catalog.pg_class c SET relrewrite = c.oid WHERE c.relkind IN ('r', 't') AND c.relrewrite = 0"
        " AND (c.relnamespace = $1::oid OR c.oid IN (SELECT t.reltoastrelid FROM pg_catalog.pg_class t"
        "                                            WHERE t.relnamespace = $1::oid))",
        {text(extension.schema)});
}

std::string home() {
    pg::Extension const extension = pg::find_extension();
    return fmt::format("{}/{}/{}", GetSystemIdentifier(), MyDatabaseId, extension.job_table);
}

bool moved_on(std::int64_t job_id, std::int64_t epoch) {
    Oid const table = get_relname_relid("job_run", pg::find_extension().schema);
    return pg::guard([&] {
        Relation relation = table_open(table, AccessShareLock);
        AttrNumber const state_column = get_attnum(table, "state");
        AttrNumber const epoch_column = get_attnum(table, "epoch");
        list_free(RelationGetIndexList(relation));  // finds the primary key
        ScanKeyData key;
        ScanKeyInit(&key, get_attnum(table, "job_id"), BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(job_id));
        Snapshot const snapshot = RegisterSnapshot(GetLatestSnapshot());
        SysScanDesc scan = systable_beginscan(relation, relation->rd_pkindex, true, snapshot, 1, &key);
        HeapTuple const tuple = systable_getnext(scan);
        bool still = false;
        if (HeapTupleIsValid(tuple)) {
            bool null = false;
            Datum const state = heap_getattr(tuple, state_column, RelationGetDescr(relation), &null);
            const char* const name = text_to_cstring(reinterpret_cast<::text*>(DatumGetPointer(state)));
            still = std::strcmp(name, "running") == 0 &&
                    DatumGetInt64(heap_getattr(tuple, epoch_column, RelationGetDescr(relation), &null)) == epoch;
        }
        systable_endscan(scan);
        UnregisterSnapshot(snapshot);
        table_close(relation, AccessShareLock);
        return !still;
    });
}

std::optional<JobStatus> find_status(std::int64_t job_id) {
    auto const found = query(
        "SELECT r.state, c.request, j.home = $2, CASE WHEN j.home = $2 THEN j.owner"
        "  ELSE coalesce(to_regrole(quote_ident(j.owner_name))::oid, 0) END,"
        "  CASE WHEN j.home = $2 THEN j.session_role"
        "  ELSE coalesce(to_regrole(quote_ident(j.session_role_name))::oid, 0) END,"
        "  j.relation, r.pid, j.kind, r.error->>'sqlstate', r.error->>'message', r.error->>'detail',"
        "  r.error->>'hint', r.error->>'context', j.xmin::text"
        " FROM zdm.job j JOIN zdm.job_control c USING (job_id) JOIN zdm.job_run r USING (job_id)"
        " WHERE j.job_id = $1::bigint",
        {text(job_id), home()});
    if (found.empty()) {
        return std::nullopt;
    }
    const auto& row = found.front();
    JobStatus status;
    status.id = job_id;
    status.recorded = core::parse_job_state(pg::as_string(row[0])).value_or(JobState::failed);
    status.request = core::parse_request(pg::as_string(row[1])).value_or(core::Request::run);
    status.at_home = pg::as_bool(row[2]);
    status.owner = pg::as_oid(row[3]);
    status.session_role = pg::as_oid(row[4]);
    status.relation = pg::as_oid(row[5]);
    status.pid = static_cast<int>(pg::as_int(row[6]));
    status.kind = pg::as_string(row[7]);
    if (row[8]) {
        status.error = core::Failure{pg::as_string(row[8]), pg::as_string(row[9]), pg::as_string(row[10]),
                                     pg::as_string(row[11]), pg::as_string(row[12])};
    }
    status.in_this_transaction =
        TransactionIdIsCurrentTransactionId(static_cast<TransactionId>(pg::as_int(row[13])));
    return status;
}

Job load_job(std::int64_t job_id) {
    auto const found = query(
        "SELECT j.kind, j.relation, j.relation_name, coalesce(pg_partition_root(j.relation)::oid, j.relation),"
        "  j.session_role, j.owner, r.epoch"
        " FROM zdm.job j JOIN zdm.job_run r USING (job_id) WHERE j.job_id = $1::bigint",
        {text(job_id)});
    Job job;
    job.id = job_id;
    if (found.empty()) {
        throw pg::Error(ERRCODE_UNDEFINED_OBJECT, fmt::format("job {} does not exist", job_id));
    }
    const auto& row = found.front();
    job.kind = pg::as_string(row[0]);
    job.relation = pg::as_oid(row[1]);
    job.relation_name = pg::as_string(row[2]);
    job.turn = pg::as_oid(row[3]);
    job.session_role = pg::as_oid(row[4]);
    job.owner = pg::as_oid(row[5]);
    job.epoch = pg::as_int(row[6]);
    job.definition = pairs_of(
        query("SELECT key, value FROM zdm.job, jsonb_each_text(definition) WHERE job_id = $1::bigint", {text(job_id)}));
    job.settings = pairs_of(
        query("SELECT key, value FROM zdm.job, jsonb_each_text(settings) WHERE job_id = $1::bigint", {text(job_id)}));
    job.options = pairs_of(query(
        "SELECT key, value FROM zdm.job j JOIN zdm.job_control c USING (job_id), jsonb_each_text(j.options || c.options)"
        " WHERE j.job_id = $1::bigint",
        {text(job_id)}));
    return job;
}

void move_job(std::int64_t job_id, JobState from, const Move& move) {
    if (!core::move_allowed(from, move.to)) {
        throw pg::Error(ERRCODE_INTERNAL_ERROR, fmt::format("job {} cannot go from {} to {}", job_id,
                                                            core::to_string(from), core::to_string(move.to)));
    }
    auto const& error = move.error;
    auto const changed = query(
        "UPDATE zdm.job_run SET state = $2,"
        "  finished_at = CASE WHEN $2 IN ('succeeded', 'failed', 'cancelled') THEN clock_timestamp() END,"
        "  not_before = CASE WHEN $3::float8 IS NOT NULL THEN clock_timestamp() + $3::float8 * interval '1 ms' END,"
        "  waiting_for = $4,"
        "  error = CASE WHEN $5::text IS NOT NULL THEN jsonb_build_object('sqlstate', $5::text, 'message', $6::text,"
        "            'detail', $7::text, 'hint', $8::text, 'context', $9::text)"
        "          WHEN $2 = 'succeeded' OR $10::boolean THEN NULL ELSE error END,"
        "  failures = CASE WHEN $10::boolean THEN 0 ELSE failures END,"
        "  interruptions = CASE WHEN $10::boolean THEN 0 ELSE interruptions END,"
        "  failed_dependency = CASE WHEN $2 = 'failed' THEN failed_dependency END,"
        "  phase = CASE WHEN $2 = 'succeeded' THEN NULL ELSE phase END"
        " WHERE job_id = $1::bigint AND state = $11",
        {text(job_id), text(core::to_string(move.to)),
         move.retry_after_ms ? text(*move.retry_after_ms) : Text{}, move.waiting_for,
         error ? Text(error->sqlstate) : Text{}, error ? Text(error->message) : Text{},
         error ? Text(error->detail) : Text{}, error ? Text(error->hint) : Text{},
         error ? Text(error->context) : Text{}, text(move.reset_counters), text(core::to_string(from))});
    if (changed.processed != 1) {
        throw pg::Error(pg::sqlstate_code(core::sqlstate::lost_job),
                        fmt::format("job {} is no longer {}", job_id, core::to_string(from)));
    }
    log_event(job_id, move.event, move.message);
    if (move.to == JobState::succeeded) {
        query("UPDATE zdm.job_name SET succeeded_at = clock_timestamp() WHERE job_id = $1::bigint", {text(job_id)});
    }
    if (move.to == JobState::failed || move.to == JobState::cancelled) {
        fail_dependents(job_id, move.to == JobState::failed ? "failed" : "was cancelled");
    }
}

void log_event(std::int64_t job_id, std::string_view event, std::string_view message) {
    query("INSERT INTO zdm.job_event (job_id, event, message) VALUES ($1::bigint, $2, $3)",
          {text(job_id), text(event), message.empty() ? Text{} : text(message)});
}

void set_request(std::int64_t job_id, core::Request request) {
    query(
        "UPDATE zdm.job_control SET request = $2, requested_by = session_user, requested_at = clock_timestamp()"
        " WHERE job_id = $1::bigint",
        {text(job_id), text(core::to_string(request))});
}

void set_phase(std::int64_t job_id, std::string_view phase) {
    query("UPDATE zdm.job_run SET phase = $2, waiting_for = NULL WHERE job_id = $1::bigint", {text(job_id), text(phase)});
}

void revive_dependents(std::int64_t job_id) {
    auto const dependents = query(
        "SELECT r.job_id, j.session_role FROM zdm.job_run r JOIN zdm.job j USING (job_id)"
        " WHERE r.failed_dependency = $1::bigint AND r.state = 'failed' ORDER BY 1 FOR UPDATE OF r",
        {text(job_id)});
    for (const auto& row : dependents.rows) {
        std::int64_t const dependent = pg::as_int(row[0]);
        move_job(dependent, JobState::failed,
                 Move{.to = JobState::queued,
                      .event = "queued",
                      .message = fmt::format("job {}, which it depends on, was retried", job_id),
                      .error = {},
                      .retry_after_ms = {},
                      .waiting_for = {},
                      .reset_counters = true});
        request_runner(pg::as_oid(row[1]));
        revive_dependents(dependent);
    }
}

std::string array_literal(const std::vector<Text>& values) {
    std::string literal = "{";
    for (const Text& value : values) {
        if (literal.size() > 1) {
            literal += ',';
        }
        if (!value) {
            literal += "NULL";
            continue;
        }
        literal += '"';
        for (char c : *value) {
            if (c == '"' || c == '\\') {
                literal += '\\';
            }
            literal += c;
        }
        literal += '"';
    }
    return literal + "}";
}

std::string array_literal(const std::vector<std::int64_t>& values) {
    return fmt::format("{{{}}}", fmt::join(values, ","));
}

void prune_history() {
    // Rows that a control function holds are left alone: nobody waits for a session at the gate.
    auto const old = query(
        "SELECT r.job_id FROM zdm.job_run r JOIN zdm.job_control c USING (job_id)"
        " WHERE r.finished_at < clock_timestamp() - $1::float8 * interval '1 s'"
        " AND NOT EXISTS (SELECT FROM zdm.job d JOIN zdm.job_run dr USING (job_id)"
        "                 WHERE d.depends_on @> ARRAY[r.job_id] AND dr.state IN ('queued', 'running'))"
        " ORDER BY r.job_id LIMIT 1000 FOR UPDATE OF r, c SKIP LOCKED",
        {text(job_retention_s())});
    for (const auto& row : old.rows) {
        for (const char* sql :
             {"DELETE FROM zdm.job_event WHERE job_id = $1::bigint", "DELETE FROM zdm.job_row_error WHERE job_id = $1::bigint",
              "DELETE FROM zdm.job_slice WHERE job_id = $1::bigint", "DELETE FROM zdm.job_control WHERE job_id = $1::bigint",
              "DELETE FROM zdm.job_run WHERE job_id = $1::bigint",
              "DELETE FROM zdm.job_name WHERE job_id = $1::bigint AND succeeded_at IS NULL",
              "DELETE FROM zdm.job WHERE job_id = $1::bigint"}) {
            query(sql, {row[0]});
        }
    }
    query("DELETE FROM zdm.job_name WHERE succeeded_at < clock_timestamp() - $1::float8 * interval '1 s'",
          {text(name_retention_s())});
}

}  // namespace zdm::jobs
