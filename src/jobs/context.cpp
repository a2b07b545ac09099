#include "jobs/context.hpp"

#include "jobs/settings.hpp"
#include "jobs/spawn.hpp"
#include "pg/latch.hpp"
#include "pg/postgres.hpp"

namespace zdm::jobs {

using pg::query;
using pg::text;

namespace {

// Somebody waits for all sessions to leave the database (DROP, RENAME, TEMPLATE): stays idle, giving way, until it has ended
// us or given up. It counts for five seconds.
void leave_database_to_others() {
    for (int i = 0; i < 100 && pg::database_wanted(); ++i) {
        pg::wait_latch(100);
    }
}

}  // namespace

bool Holds::hold_in_transaction() {
    return slot.hold_in_transaction() && job.hold_in_transaction() && (!turn || turn.hold_in_transaction());
}

bool Holds::recover() {
    bool const slot_held = slot.recover();
    bool const job_held = job.recover();
    bool const turn_held = !turn || turn.recover();
    return slot_held && job_held && turn_held;
}

void Holds::reassert() {
    slot.reassert();
    job.reassert();
    if (turn) {
        turn.reassert();
    }
}

JobContext::JobContext(Job job, Holds& holds, Oid job_table)
    : job_(std::move(job)), holds_(holds), job_table_(job_table), max_workers_(max_workers()) {}

pg::Text JobContext::definition(std::string_view key) const {
    for (const auto& [name, value] : job_.definition) {
        if (name == key) {
            return value;
        }
    }
    return std::nullopt;
}

std::string JobContext::option(std::string_view name) const {
    for (const auto& [key, value] : job_.options) {
        if (key == name) {
            return pg::as_string(value);
        }
    }
    return "";
}

void JobContext::set_phase(std::string_view phase) {
    WorkTransaction work(*this);
    {
        pg::Bookkeeping as_extension;
        jobs::set_phase(id(), phase);
    }
    waiting_for_.clear();
    work.commit();
}

void JobContext::set_waiting(const std::string& waiting_for) {
    if (waiting_for == waiting_for_) {
        return;
    }
    WorkTransaction work(*this);
    {
        pg::Bookkeeping as_extension;
        query("UPDATE zdm.job_run SET waiting_for = $2 WHERE job_id = $1::bigint AND epoch = $3::bigint",
              {text(id()), waiting_for.empty() ? pg::Text{} : text(waiting_for), text(job_.epoch)});
    }
    work.commit();
    waiting_for_ = waiting_for;
}

void JobContext::log(std::string_view event, std::string_view message) {
    WorkTransaction work(*this);
    {
        pg::Bookkeeping as_extension;
        log_event(id(), event, message);
    }
    work.commit();
}

void JobContext::sleep(std::int64_t ms) {
    pg::guard([] { pgstat_report_stat(true); });
    pg::wait_latch(ms);
}

// What must happen between two transactions.
void JobContext::between_transactions() {
    leave_database_to_others();
    pg::guard([] {
        CHECK_FOR_INTERRUPTS();
        // User code may have set one of them for the session.
        compat::set_session_defaults();
    });
    pg::process_config_reload();
    if (max_workers() > max_workers_) {
        (void)start_runner(MyDatabaseId, job_.session_role);  // for whoever found no slot
    }
    max_workers_ = max_workers();
}

WorkTransaction::WorkTransaction(JobContext& context) : context_((context.between_transactions(), context)) {
    if (pg::lock_extension().job_table != context.job_table_) {
        throw Stopped{StopReason::gone};
    }
    spi_.emplace();
    if (!context_.holds_.hold_in_transaction()) {
        throw Stopped{StopReason::lost};
    }
    // Nothing that the role, the database or user code has set may decide how long this transaction lives or how it
    // reads: set what matters, every time. Row locks are never waited for longer than a batch may last.
    for (const auto& [name, value] : {std::pair{"statement_timeout", "0"}, {"lock_timeout", "0"},
                                      {"synchronous_commit", "off"}, {"row_security", "on"},
                                      {"default_transaction_read_only", "off"}}) {
        pg::set_local(name, value);
    }
    for (const auto& [name, value] : context_.job_.settings) {
        if (value) {
            pg::set_local(name.c_str(), value->c_str());
        }
    }
    Job& job = context_.job_;
    pg::Bookkeeping as_extension;
    auto const now = query(
        "SELECT c.request, r.epoch, r.state, EXISTS (SELECT FROM zdm.job_hold), c.options::text"
        " FROM zdm.job_control c JOIN zdm.job_run r USING (job_id) WHERE c.job_id = $1::bigint",
        {text(job.id)});
    if (now.empty() || pg::as_int(now.front()[1]) != job.epoch || pg::as_string(now.front()[2]) != "running") {
        throw Stopped{StopReason::lost};
    }
    const auto& row = now.front();
    auto const request = core::parse_request(pg::as_string(row[0])).value_or(core::Request::run);
    if (request == core::Request::pause) {
        throw Stopped{StopReason::paused};
    }
    if (request == core::Request::cancel) {
        throw Stopped{StopReason::cancelled};
    }
    if (pg::as_bool(row[3]) || !enabled()) {
        throw Stopped{StopReason::held};
    }
    if (pg::as_string(row[4]) != "{}") {
        auto const changed =
            query("SELECT key, value FROM jsonb_each_text($1::jsonb)", {row[4]});
        for (const auto& option : changed.rows) {
            for (auto& [name, value] : job.options) {
                if (name == pg::as_string(option[0])) {
                    value = option[1];
                }
            }
        }
    }
}

void WorkTransaction::force_deferred() {
    pg::AsRole as_role(context_.job_.owner);
    pg::force_deferred();
}

void WorkTransaction::commit() {
    context_.holds_.reassert();
    spi_.reset();
    {
        pg::AsRole as_role(context_.job_.owner);
        transaction_.commit();
    }
    if (!context_.holds_.recover()) {
        throw Stopped{StopReason::lost};
    }
}

}  // namespace zdm::jobs
