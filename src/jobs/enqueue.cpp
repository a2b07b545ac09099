#include "jobs/enqueue.hpp"

#include <fmt/format.h>

#include "core/options.hpp"
#include "jobs/spawn.hpp"
#include "pg/identity.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

using pg::query;
using pg::text;
using pg::Text;

namespace {

// What else than the search_path decides what an expression means.
constexpr const char* captured_settings[] = {
    "search_path",  "TimeZone",    "DateStyle",  "IntervalStyle", "bytea_output",
    "xmlbinary",    "xmloption",   "lc_monetary", "lc_numeric",   "lc_time",
    "array_nulls",  "default_text_search_config", "extra_float_digits", "transform_null_equals",
    "standard_conforming_strings", "backslash_quote",
};

std::string role_name(Oid role) {
    const char* name = pg::guard([&] { return GetUserNameFromId(role, true); });
    return name == nullptr ? fmt::format("{}", role) : name;
}

struct Column {
    std::vector<Text> keys;
    std::vector<Text> values;
};

template <class Values>
Column columns_of(const Values& pairs) {
    Column column;
    for (const auto& [key, value] : pairs) {
        column.keys.emplace_back(key);
        column.values.emplace_back(value);
    }
    return column;
}

Pairs session_settings() {
    Pairs pairs;
    for (const char* name : captured_settings) {
        const char* value = pg::guard([&] { return GetConfigOption(name, true, false); });
        if (value != nullptr) {
            pairs.emplace_back(name, value);
        }
    }
    return pairs;
}

OptionValues merged_options(const OptionValues& given) {
    OptionValues merged = captured_options();
    for (const auto& [name, value] : given) {
        for (auto& [known, current] : merged) {
            if (known == name) {
                current = value;
            }
        }
    }
    return merged;
}

// Claims the name, or finds the job that has it. nullopt: the name is ours.
std::optional<std::int64_t> existing_job(const NewJob& job, std::int64_t job_id, Oid owner) {
    auto const definition = columns_of(job.definition);
    std::string const owner_name = role_name(owner);
    auto const mine = query(
        "INSERT INTO zdm.job_name (name, job_id, kind, relation, relation_name, definition, owner, owner_name, home)"
        " VALUES ($1, $2::bigint, $3, $4::oid, $5, jsonb_object($6::text[], $7::text[]), $8::oid, $9, $10)"
        " ON CONFLICT (name) DO NOTHING RETURNING job_id",
        {text(*job.common.name), text(job_id), text(job.kind), text(job.relation), text(job.relation_name),
         array_literal(definition.keys), array_literal(definition.values), text(owner), text(owner_name), home()});
    if (!mine.empty()) {
        return std::nullopt;
    }
    auto const other = query(
        "SELECT n.job_id, CASE WHEN n.home = $9 THEN n.owner = $7::oid ELSE n.owner_name = $8 END,"
        "  n.kind = $2 AND n.definition = jsonb_object($5::text[], $6::text[])"
        "  AND CASE WHEN n.home = $9 THEN n.relation IS NOT DISTINCT FROM $3::oid"
        "      ELSE n.relation_name IS NOT DISTINCT FROM $4 END, coalesce(j.statement, n.kind)"
        " FROM zdm.job_name n LEFT JOIN zdm.job j USING (job_id) WHERE n.name = $1",
        {text(*job.common.name), text(job.kind), text(job.relation), text(job.relation_name),
         array_literal(definition.keys), array_literal(definition.values), text(owner), text(owner_name), home()});
    if (other.empty()) {
        throw pg::Error(ERRCODE_T_R_SERIALIZATION_FAILURE,
                        fmt::format("job name \"{}\" was taken by a concurrent transaction", *job.common.name))
            .hint("Try again.");
    }
    const auto& row = other.front();
    if (!pg::as_bool(row[1])) {
        throw pg::Error(ERRCODE_DUPLICATE_OBJECT,
                        fmt::format("job name \"{}\" belongs to another role", *job.common.name))
            .hint("Names are unique in a database: choose another one.");
    }
    if (!pg::as_bool(row[2])) {
        throw pg::Error(ERRCODE_DUPLICATE_OBJECT,
                        fmt::format("job name \"{}\" belongs to job {}, which has another definition",
                                    *job.common.name, pg::as_int(row[0])))
            .detail(fmt::format("Job {}: {}", pg::as_int(row[0]), pg::as_string(row[3])))
            .hint("The same call again returns the same job; for other work choose another name.");
    }
    return pg::as_int(row[0]);
}

// The sequence can be behind the tables: a subscription copies rows, not sequences.
std::int64_t new_job_id() {
    for (;;) {
        auto const next = query("SELECT n, EXISTS (SELECT FROM zdm.job WHERE job_id = n) FROM nextval('zdm.job_id_seq') n");
        if (!pg::as_bool(next.front()[1])) {
            return pg::as_int(next.front()[0]);
        }
        query("SELECT setval('zdm.job_id_seq', greatest((SELECT max(job_id) FROM zdm.job),"
              " (SELECT max(job_id) FROM zdm.job_name), (SELECT last_value FROM zdm.job_id_seq)))");
    }
}

void check_dependencies(const std::vector<std::int64_t>& depends_on, Oid caller) {
    for (std::int64_t dependency : depends_on) {
        auto const status = find_status(dependency);
        bool const visible =
            status && (pg::guard([&] { return has_privs_of_role(caller, status->owner); }) ||
                       pg::guard([&] { return has_privs_of_role(caller, ROLE_PG_MONITOR); }));
        if (!visible) {
            throw pg::Error(ERRCODE_UNDEFINED_OBJECT, fmt::format("job {} in depends_on does not exist", dependency))
                .hint("SELECT job_id, name, state FROM zdm.jobs shows the jobs there are.");
        }
        if (status->recorded == core::JobState::failed || status->recorded == core::JobState::cancelled) {
            throw pg::Error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                            fmt::format("job {} in depends_on has {}", dependency,
                                        status->recorded == core::JobState::failed ? "failed" : "been cancelled"))
                .hint(fmt::format("SELECT zdm.retry({}) first.", dependency));
        }
    }
}

}  // namespace

void check_caller() {
    pg::guard([] {
        PreventCommandDuringRecovery("enqueuing a job");
        PreventCommandIfReadOnly("enqueuing a job");
    });
    pg::Extension const extension = pg::find_extension();
    if (OidIsValid(extension.oid) && !pg::version_matches(extension.oid)) {
        throw pg::Error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        "extension \"zdm_ext\" in this database is of another version than its library")
            .hint("Run ALTER EXTENSION zdm_ext UPDATE.");
    }
    Oid const session = GetSessionUserId();
    Oid const current = GetUserId();
    if (session != current && !pg::guard([&] { return compat::may_set_role(session, current); })) {
        throw pg::Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                        fmt::format("role \"{}\" may not become role \"{}\", as which the job would run",
                                    role_name(session), role_name(current)))
            .detail("A job's worker connects as the session's user and does SET ROLE to the current one.")
            .hint("Call it outside the SECURITY DEFINER function, or as a member of that role.");
    }
}

void check_options(const OptionValues& options) {
    for (const auto& [name, value] : options) {
        const core::Option* option = core::find_option(name);
        if (option == nullptr) {
            throw pg::Error(ERRCODE_INTERNAL_ERROR, fmt::format("unknown option \"{}\"", name));
        }
        if (auto problem = core::check_option(*option, value)) {
            throw pg::Error(ERRCODE_INVALID_PARAMETER_VALUE,
                            fmt::format("invalid value for option \"{}\": {}", name, value))
                .hint(*problem);
        }
        if (!option->available && !core::is_default(*option, value)) {
            throw pg::Error(ERRCODE_FEATURE_NOT_SUPPORTED,
                            fmt::format("option \"{}\" is not available in this version of zdm_ext", name))
                .hint(fmt::format("Leave it out, and zdm.{} at its default.", name));
        }
    }
}

std::int64_t enqueue(const NewJob& job) {
    check_caller();
    OptionValues const options = merged_options(job.common.options);
    check_options(options);
    if (job.common.name && (job.common.name->empty() || job.common.name->size() > 200)) {
        throw pg::Error(ERRCODE_INVALID_PARAMETER_VALUE, "name must have 1 to 200 bytes")
            .hint("Give a name that says what the job is for, or none.");
    }
    Oid const owner = GetUserId();
    Oid const session = GetSessionUserId();
    std::string const owner_name = role_name(owner);
    std::string const session_name = role_name(session);
    Pairs const settings = session_settings();

    pg::Spi spi;
    pg::Bookkeeping as_extension;
    keep_out_of_decoding();
    check_dependencies(job.common.depends_on, owner);
    std::int64_t const job_id = new_job_id();
    if (job.common.name) {
        if (auto existing = existing_job(job, job_id, owner)) {
            // Whatever keeps it from running may be gone: a call that starts work takes unfinished jobs up.
            request_runner(session);
            return *existing;
        }
    }
    auto const definition = columns_of(job.definition);
    auto const setting = columns_of(settings);
    auto const option = columns_of(options);
    query(
        "INSERT INTO zdm.job (job_id, kind, name, relation, relation_name, definition, statement, session_role,"
        " session_role_name, owner, owner_name, settings, options, depends_on, home)"
        " VALUES ($1::bigint, $2, $3, $4::oid, $5, jsonb_object($6::text[], $7::text[]), $8, $9::oid, $10, $11::oid,"
        " $12, jsonb_object($13::text[], $14::text[]), jsonb_object($15::text[], $16::text[]), $17::bigint[], $18)",
        {text(job_id), text(job.kind), job.common.name, text(job.relation), text(job.relation_name),
         array_literal(definition.keys), array_literal(definition.values), text(job.statement), text(session),
         text(session_name), text(owner), text(owner_name), array_literal(setting.keys),
         array_literal(setting.values), array_literal(option.keys), array_literal(option.values),
         array_literal(job.common.depends_on), home()});
    query("INSERT INTO zdm.job_control (job_id, request) VALUES ($1::bigint, $2)",
          {text(job_id), text(job.common.paused ? "pause" : "run")});
    query("INSERT INTO zdm.job_run (job_id) VALUES ($1::bigint)", {text(job_id)});
    log_event(job_id, "enqueued", job.statement);
    if (!job.common.paused) {
        request_runner(session);
    }
    return job_id;
}

}  // namespace zdm::jobs
