// Many sessions control a handful of jobs at random. No state is ever impossible, the log tells only moves
// that are allowed, and in the end every job can be brought to an end, each row changed exactly once.
#include "client.hpp"

#include <map>
#include <set>

using namespace client;

namespace {

constexpr int tables = 3;
constexpr int rows = 1500;
constexpr int sessions = 8;
constexpr int seconds = 12;

void create_tables(Session& session) {
    session.run(
        // Slow until the brake is released: the jobs are there to be controlled.
        "CREATE TABLE brake (held boolean); INSERT INTO brake VALUES (true);"
        "CREATE TABLE audit (tab text NOT NULL, col text NOT NULL, id integer NOT NULL);"
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        "  IF (SELECT held FROM public.brake) THEN PERFORM pg_sleep(0.01); END IF;"
        "  INSERT INTO public.audit VALUES (TG_TABLE_NAME, CASE WHEN NEW.a IS DISTINCT FROM OLD.a THEN 'a' "
        "ELSE 'b' END, NEW.id);"
        "  RETURN NEW; END$$");
    for (int i = 0; i < tables; ++i) {
        session.run(
            "CREATE TABLE t{0} (id integer PRIMARY KEY, v text NOT NULL, a text, b text);"
            "INSERT INTO t{0} SELECT i, 'row ' || i FROM generate_series(1, {1}) i;"
            "CREATE TRIGGER slow BEFORE UPDATE ON t{0} FOR EACH ROW EXECUTE FUNCTION slow()",
            i, rows);
    }
}

// Two jobs a table; the last depends on the first.
std::vector<std::int64_t> enqueue(Session& session) {
    std::vector<std::int64_t> jobs;
    for (const char* column : {"a", "b"}) {
        for (int i = 0; i < tables; ++i) {
            std::string const more =
                jobs.size() == 2 * tables - 1 ? fmt::format(", depends_on => ARRAY[{}]", jobs.front()) : "";
            jobs.push_back(
                session.number(fmt::format("SELECT zdm.start_backfill('t{0}', '{1} = upper(v)', name => "
                                           "'t{0}.{1}', batch_time => '20 ms'{2})",
                                           i, column, more)));
        }
    }
    return jobs;
}

struct Tally {
    std::mutex mutex;
    std::map<std::string, int> calls;       // by call and SQLSTATE
    std::map<std::string, int> unexpected;  // what no DBA should meet
};

void control(const std::string& database, int number, const std::vector<std::int64_t>& jobs,
             const std::atomic<bool>& stop, Tally& tally) {
    Session session(database, fmt::format("control {}", number));
    std::mt19937 random(static_cast<unsigned>(number) * 31 + 7);
    // A refusal (55000) is an answer; so is what zdm.wait says of a job that has not succeeded.
    std::set<std::string> const answers = {"", "55000"};
    std::set<std::string> const wait_answers = {"", "ZD001", "ZD005", "ZD008"};
    while (!stop) {
        std::int64_t const job = jobs[random() % jobs.size()];
        std::string call;
        std::string name;
        switch (random() % 12) {
            case 0:
            case 1:
                name = "pause";
                break;
            case 2:
            case 3:
            case 4:
                name = "resume";
                break;
            case 5:
                name = "cancel";
                break;
            case 6:
            case 7:
            case 8:
                name = "retry";
                break;
            case 9:
                name = "alter_job";
                call =
                    fmt::format("SELECT zdm.alter_job({}, batch_time => '{} ms')", job, 10 + random() % 50);
                break;
            default:
                name = "wait";
                call = fmt::format("CALL zdm.wait({}, timeout => '{} ms')", job, random() % 60);
                break;
        }
        if (call.empty()) {
            call = fmt::format("SELECT zdm.{}({})", name, job);
        }
        // Sometimes it thinks twice, or asks for several things at once.
        bool const block = name != "wait" && random() % 5 == 0;
        std::string state = block ? session.attempt("BEGIN") : "";
        state = session.attempt(call);
        if (block) {
            std::this_thread::sleep_for(milliseconds(random() % 20));
            (void)session.attempt(random() % 3 == 0 ? "ROLLBACK" : "COMMIT");
        }
        {
            std::lock_guard const guard(tally.mutex);
            ++tally.calls[name + " " + (state.empty() ? "ok" : state)];
            if (!(name == "wait" ? wait_answers : answers).contains(state)) {
                ++tally.unexpected[name + " " + state];
            }
        }
        std::this_thread::sleep_for(milliseconds(random() % 40));
    }
}

// What must hold of each row of zdm.jobs, whenever one looks. Nobody ends a process here, so nothing is
// interrupted.
constexpr const char* impossible =
    "SELECT string_agg(format('%s %s workers=%s pids=%s finished=%s waiting=%s', name, state, workers, pids, "
    "finished_at,"
    " waiting_for), '; ') FROM zdm.jobs WHERE NOT CASE state"
    "  WHEN 'running' THEN workers = 1 AND cardinality(pids) = 1 AND pids[1] IS NOT NULL AND started_at IS "
    "NOT NULL"
    "    AND finished_at IS NULL"
    "  WHEN 'queued' THEN finished_at IS NULL"
    "  WHEN 'paused' THEN workers = 0 AND finished_at IS NULL"
    "  WHEN 'interrupted' THEN false"
    "  WHEN 'succeeded' THEN workers = 0 AND finished_at IS NOT NULL AND waiting_for IS NULL AND last_error "
    "IS NULL"
    "    AND progress = 100 AND rows_done = 1500"
    "  WHEN 'failed' THEN workers = 0 AND finished_at IS NOT NULL AND waiting_for IS NULL AND last_error IS "
    "NOT NULL"
    "  WHEN 'cancelled' THEN workers = 0 AND waiting_for IS NULL"
    "  ELSE false END OR progress NOT BETWEEN 0 AND 100 OR array_position(pids, NULL) IS NOT NULL";

struct Observation {
    int looks = 0;
    std::map<std::string, int> wrong;
    std::set<std::string> states;
    int turns_broken = 0;
};

void observe(const std::string& database, const std::atomic<bool>& stop, Observation& seen) {
    Session session(database, "observer");
    while (!stop) {
        std::string const wrong = session.value(impossible);
        if (!wrong.empty()) {
            ++seen.wrong[wrong];
        }
        seen.turns_broken += session.truth(
            "SELECT EXISTS (SELECT FROM zdm.jobs WHERE state = 'running' GROUP BY relation"
            " HAVING count(*) > 1)");
        for (const Row& row : session.rows("SELECT DISTINCT state FROM zdm.jobs")) {
            seen.states.insert(row[0]);
        }
        ++seen.looks;
        std::this_thread::sleep_for(milliseconds(3));
    }
}

// Replays the log: where each job stood, and whether what was written next may follow.
std::string check_log(Session& session) {
    // event -> (states it may follow, state after it); other events change no state
    struct Move {
        std::set<std::string> from;
        std::string to;
    };
    std::map<std::string, Move> const moves = {
        {"enqueued", {{""}, "queued"}},
        {"started", {{"queued"}, "running"}},
        {"taken up", {{"running"}, "running"}},
        {"paused", {{"running"}, "queued"}},
        {"held", {{"running"}, "queued"}},
        {"retry", {{"running"}, "queued"}},
        {"queued", {{"failed", "cancelled"}, "queued"}},
        {"succeeded", {{"running"}, "succeeded"}},
        {"failed", {{"running", "queued"}, "failed"}},
        {"cancelled", {{"running", "queued"}, "cancelled"}},
    };
    std::map<std::string, std::string> now;
    for (const Row& row : session.rows("SELECT job_id, event FROM zdm.job_log")) {
        auto const move = moves.find(row[1]);
        if (move == moves.end()) {
            continue;
        }
        std::string& state = now[row[0]];
        if (!move->second.from.contains(state)) {
            return fmt::format("job {}: '{}' follows '{}'", row[0], row[1], state);
        }
        state = move->second.to;
    }
    for (const Row& row : session.rows("SELECT job_id, state FROM zdm.jobs")) {
        if (now[row[0]] != row[1]) {
            return fmt::format("job {} is {}, its log ends with {}", row[0], row[1], now[row[0]]);
        }
    }
    return "";
}

std::string text(const std::map<std::string, int>& counts, std::size_t most = 12) {
    std::string all;
    for (const auto& [what, count] : counts) {
        if (most-- == 0) {
            return all + " ...";
        }
        all += fmt::format("{}{} x{}", all.empty() ? "" : ", ", what, count);
    }
    return all;
}

void random_control(Report& report, const std::string& database) {
    Session session(database);
    create_tables(session);
    auto const jobs = enqueue(session);

    std::atomic<bool> stop{false};
    std::atomic<bool> end{false};
    Tally tally;
    Observation seen;
    std::thread observer([&] { observe(database, end, seen); });
    std::vector<std::thread> threads;
    for (int i = 0; i < sessions; ++i) {
        threads.emplace_back([&, i] { control(database, i, jobs, stop, tally); });
    }
    std::this_thread::sleep_for(std::chrono::seconds(seconds));
    stop = true;
    for (auto& thread : threads) {
        thread.join();
    }
    report.note(text(tally.calls, 100));
    report.check(tally.unexpected.empty(), "every call is done or refused " + text(tally.unexpected));

    // Every job can be brought to an end: one stays cancelled, all others succeed.
    session.run("UPDATE brake SET held = false");
    std::int64_t const left = jobs[1];
    (void)session.attempt(fmt::format("SELECT zdm.cancel({})", left));
    for (std::int64_t const job : jobs) {
        if (job != left) {
            (void)session.attempt(fmt::format("SELECT zdm.resume({})", job));
            (void)session.attempt(fmt::format("SELECT zdm.retry({})", job));
        }
    }
    bool const ended =
        wait_until(session, fmt::format("SELECT bool_and(state = 'succeeded' OR job_id = {} AND state IN "
                                        "('cancelled', 'succeeded')) FROM zdm.jobs",
                                        left));
    std::string states;
    for (const Row& row :
         session.rows("SELECT name, state, waiting_for, last_error FROM zdm.jobs ORDER BY job_id")) {
        states += fmt::format(" {}={}({}{})", row[0], row[1], row[2], row[3]);
    }
    report.check(ended, "every job can be brought to an end" + (ended ? "" : states));
    end = true;
    observer.join();

    report.check(seen.wrong.empty(),
                 fmt::format("no state is impossible in {} looks {}", seen.looks, text(seen.wrong, 3)));
    report.equal(seen.turns_broken, 0, "jobs on one table take turns");
    report.check(
        seen.states.contains("queued") && seen.states.contains("running") && seen.states.contains("paused"),
        fmt::format("the jobs were queued, running and paused meanwhile ({} states)", seen.states.size()));
    std::string const log = check_log(session);
    report.check(log.empty(), "the log tells allowed moves only " + log);
    report.equal(session.number(
                     "SELECT count(*) FROM (SELECT FROM audit GROUP BY tab, col, id HAVING count(*) > 1) x"),
                 std::int64_t{0}, "no row was changed twice");
    report.check(
        session.truth(
            "SELECT bool_and(j.rows_done = coalesce(n, 0)) FROM zdm.jobs j LEFT JOIN"
            " (SELECT tab || '.' || col AS name, count(*) AS n FROM audit GROUP BY 1) a USING (name)"),
        "rows_done is the number of changes");
    std::string const refused = session.attempt(fmt::format("SELECT zdm.cancel({})", jobs[0]));
    report.equal(refused, std::string("55000"), "a job that has succeeded stays so");
}

// A process that vanishes again and again without progress is given up. With progress between it is not, also
// when the job is paused and resumed in the meantime.
void vanishing(Report& report, const std::string& database) {
    Session session(database);
    session.run(
        "CREATE TABLE slowly (id integer PRIMARY KEY, v text, w text);"
        "INSERT INTO slowly SELECT i, 'row ' || i FROM generate_series(1, 400) i;"
        "UPDATE brake SET held = true;"
        "CREATE FUNCTION wait_a_bit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        "  IF (SELECT held FROM public.brake) THEN PERFORM pg_sleep(0.2); END IF; RETURN NEW; END$$;"
        "CREATE TRIGGER wait_a_bit BEFORE UPDATE ON slowly FOR EACH ROW EXECUTE FUNCTION wait_a_bit()");
    std::int64_t const job =
        session.number("SELECT zdm.start_backfill('slowly', 'w = upper(v)', batch_time => '50 ms')");
    auto const of_job = [&](const char* what) {
        return fmt::format("SELECT {} FROM zdm.jobs WHERE job_id = {}", what, job);
    };
    bool reached = true;
    for (int round = 0; round < 6 && reached; ++round) {
        std::int64_t const before = session.number(of_job("rows_done"));
        reached = wait_until(session, of_job(fmt::format("rows_done > {}", before).c_str()));
        session.run(fmt::format("SELECT zdm.pause({})", job));
        reached = reached && wait_until(session, of_job("state = 'paused' AND workers = 0"));
        session.run(fmt::format("SELECT zdm.resume({})", job));
        // Before its first row is done.
        reached =
            reached && wait_until(session, of_job("workers = 1"), milliseconds(60'000), milliseconds(2));
        session.run(of_job("pg_terminate_backend(pids[1])"));
        (void)wait_until(session, of_job("workers = 0"), milliseconds(10'000), milliseconds(2));
        (void)session.attempt(fmt::format("SELECT zdm.resume({})", job));
    }
    session.run("UPDATE brake SET held = false");
    report.check(reached && wait_until(session, of_job("state IN ('succeeded', 'failed')")) &&
                     session.truth(of_job("state = 'succeeded'")),
                 "a job that progresses between is not given up " + session.value(of_job("last_error")));
    std::string const log = check_log(session);
    report.check(log.empty(), "its log tells allowed moves only " + log);
}

}  // namespace

int main() {
    return run_program("control", [](Report& report, Database& database) {
        random_control(report, database.name());
        vanishing(report, database.name());
    });
}
