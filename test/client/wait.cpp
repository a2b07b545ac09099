// CALL zdm.wait holds neither a snapshot nor a lock while it waits, so CREATE INDEX CONCURRENTLY and DDL go
// on beside it; it says how the job ended, tells its progress, and can be cancelled.
#include "client.hpp"

using namespace client;

namespace {

struct Waiter {
    Waiter(const std::string& database, const std::string& before, const std::string& call,
           const std::string& after)
        : session(database, "waiter") {
        thread = std::thread([this, before, call, after] {
            if (!before.empty()) {
                session.run(before);
            }
            state = session.attempt(call);
            ended = true;
            if (!after.empty()) {
                session.run(after);
            }
        });
    }
    ~Waiter() { join(); }
    void join() {
        if (thread.joinable()) {
            thread.join();
        }
    }
    Session session;
    std::string state;  // SQLSTATE
    std::atomic<bool> ended{false};
    std::thread thread;
};

void check_way(Report& report, const std::string& database, const std::string& name,
               const std::string& before, const std::string& call, const std::string& after) {
    Session session(database);
    session.run(
        "DROP TABLE IF EXISTS t; CREATE TABLE t (id integer PRIMARY KEY, v text, w text);"
        "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 100) i");
    std::int64_t const job = session.number("SELECT zdm.start_backfill('t', 'w = upper(v)', paused => true)");
    Waiter waiter(database, before, fmt::format(fmt::runtime(call), job), after);

    // It looks at the job now and then; between two looks nothing is held, and that is most of the time.
    std::string const at_rest = fmt::format(
        "SELECT state = 'active' AND backend_xmin IS NULL AND backend_xid IS NULL AND NOT EXISTS (SELECT "
        "FROM pg_locks l"
        " JOIN pg_class c ON c.oid = l.relation WHERE l.pid = a.pid AND (c.relname = 't' OR c.relnamespace = "
        "'zdm'::regnamespace))"
        " FROM pg_stat_activity a WHERE pid = {}",
        waiter.session.pid());
    report.check(wait_until(session, at_rest), name + ": no snapshot and no lock");
    int held = 0;
    for (int i = 0; i < 40; ++i) {
        held += session.truth(at_rest) ? 0 : 1;
        std::this_thread::sleep_for(milliseconds(5));
    }
    report.check(held < 20, fmt::format("{}: nor at another time ({} of 40 looks saw one)", name, held));

    session.run("SET statement_timeout = '60 s'; SET lock_timeout = '60 s'");
    report.equal(session.attempt("CREATE INDEX CONCURRENTLY t_v ON t (v)"), std::string(),
                 name + ": CREATE INDEX CONCURRENTLY does not wait for it");
    report.equal(session.attempt("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE NOWAIT; COMMIT"),
                 std::string(), name + ": the table is free");
    report.check(!waiter.ended, name + ": it still waits for the paused job");
    session.run(fmt::format("SELECT zdm.resume({})", job));
    waiter.join();
    report.equal(waiter.state, std::string(), name + ": it returns when the job has succeeded");
    report.check(
        session.truth(fmt::format("SELECT state = 'succeeded' FROM zdm.jobs WHERE job_id = {}", job)),
        name + ": and not before");
}

void check_ends(Report& report, const std::string& database) {
    Session session(database);
    session.run(
        "DROP TABLE IF EXISTS t; CREATE TABLE t (id integer PRIMARY KEY, v text, w integer);"
        "INSERT INTO t VALUES (1, '1'), (2, 'no number')");
    auto start = [&](const std::string& more) {
        return session.number(
            fmt::format("SELECT zdm.start_backfill('t', 'w = v::integer', paused => true{})", more));
    };
    std::int64_t const job = start("");
    std::int64_t const dependent = start(fmt::format(", depends_on => ARRAY[{}]", job));
    session.run(fmt::format("SELECT zdm.resume({})", dependent));
    {
        Waiter one(database, "", fmt::format("CALL zdm.wait({})", job), "");
        Waiter other(database, "", fmt::format("CALL zdm.wait({}, timeout => '60 s')", dependent), "");
        session.run(fmt::format("SELECT zdm.resume({})", job));
        one.join();
        other.join();
        report.equal(one.state, std::string("22P02"), "the job's own error is raised");
        report.equal(other.state, std::string("ZD001"), "a dependency that failed is told");
    }
    {
        Waiter one(database, "", fmt::format("CALL zdm.wait({})", job), "");
        one.join();
        report.equal(one.state, std::string("22P02"), "also when the job has failed before");
    }
    std::int64_t const cancelled = start("");
    {
        Waiter one(database, "", fmt::format("CALL zdm.wait({})", cancelled), "");
        (void)wait_until(session,
                         fmt::format("SELECT query LIKE '%zdm.wait%' FROM pg_stat_activity WHERE pid = {}",
                                     one.session.pid()));
        session.run(fmt::format("SELECT zdm.cancel({})", cancelled));
        one.join();
        report.check(one.state.starts_with("ZD"), "a job that was cancelled: " + one.state);
    }
    std::int64_t const left = start("");
    {
        Waiter one(database, "SET client_min_messages = notice", fmt::format("CALL zdm.wait({})", left),
                   "SELECT 1");
        (void)wait_until(
            session,
            fmt::format("SELECT clock_timestamp() - query_start > '2.5 s' AND query LIKE '%zdm.wait%'"
                        " FROM pg_stat_activity WHERE pid = {}",
                        one.session.pid()));
        session.run(fmt::format("SELECT pg_cancel_backend({})", one.session.pid()));
        one.join();
        report.equal(one.state, std::string("57014"), "who waits can be cancelled, and the session lives on");
        report.check(one.session.notices().find(fmt::format("job {}: ", left)) != std::string::npos,
                     "who waits is told the progress");
    }
    report.check(session.truth(fmt::format("SELECT state = 'paused' FROM zdm.jobs WHERE job_id = {}", left)),
                 "the job does not notice");
    {
        std::string const call = fmt::format("CALL zdm.wait({})", left);
        Waiter one(database, "", call, "");
        Waiter other(database, "BEGIN", call, "ROLLBACK");
        for (const Waiter* waiter : {&one, &other}) {
            (void)wait_until(
                session, fmt::format("SELECT query LIKE '%zdm.wait%' FROM pg_stat_activity WHERE pid = {}",
                                     waiter->session.pid()));
        }
        std::this_thread::sleep_for(milliseconds(300));  // past its first look
        session.run("SET lock_timeout = '30 s'; DROP EXTENSION zdm_ext");
        one.join();
        other.join();
        report.check(
            !one.state.empty() && !other.state.empty(),
            fmt::format("DROP EXTENSION does not wait for who waits: {}, {}", one.state, other.state));
    }
}

}  // namespace

int main() {
    return run_program("wait", [](Report& report, Database& database) {
        Session(database.name())
            .run(
                "CREATE PROCEDURE migrate(job bigint) LANGUAGE plpgsql AS $$BEGIN"
                "  COMMIT; CALL zdm.wait(job); COMMIT; END$$");
        std::string const& name = database.name();
        check_way(report, name, "alone", "", "CALL zdm.wait({})", "");
        check_way(report, name, "in a transaction block", "BEGIN", "CALL zdm.wait({})", "COMMIT");
        check_way(report, name, "in a block that has read", "BEGIN; SELECT count(*) FROM pg_settings",
                  "CALL zdm.wait({})", "COMMIT");
        check_way(report, name, "in DO", "", "DO $$BEGIN CALL zdm.wait({}); END$$", "");
        check_way(report, name, "in a procedure", "", "CALL migrate({})", "");
        check_ends(report, name);
    });
}
