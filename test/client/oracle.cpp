// Applications write while a backfill runs. An oracle table, written in the same transactions, says what each
// row must be; a trigger of the test counts every change that the backfill makes to a row.
#include "client.hpp"

#include <algorithm>
#include <map>
#include <memory>

using namespace client;

namespace {

// Who keeps dst in step with src.
enum class Writers {
    fill,     // the application writes dst itself
    trigger,  // a BEFORE trigger does, as a sync would
    ignore    // nobody: the last looks have to find what the application leaves behind
};

struct Variant {
    std::string name;
    std::string key;  // constraint or index on id
    bool partitioned = false;
    Writers writers = Writers::fill;
    bool chaos = false;  // pause, resume, end the worker, change batch_time
    int rows = 40'000;
    int seconds = 2;  // the writers go on for at least so long
};

constexpr int writer_count = 4;

std::string table_definition(const Variant& variant) {
    std::string const columns =
        "id bigint NOT NULL, grp integer NOT NULL, src text NOT NULL, dst text, pad text, hits integer NOT "
        "NULL DEFAULT 0";
    if (!variant.partitioned) {
        return fmt::format("CREATE TABLE t ({}); {}", columns, variant.key);
    }
    std::string sql = fmt::format("CREATE TABLE t ({}) PARTITION BY LIST (grp); {}", columns, variant.key);
    for (int grp = 0; grp < 4; ++grp) {
        sql += fmt::format("CREATE TABLE t_{0} PARTITION OF t FOR VALUES IN ({0});", grp);
    }
    return sql;
}

void create_tables(Session& session, const Variant& variant) {
    session.run(
        "DROP TABLE IF EXISTS t, oracle, audit, late; DROP FUNCTION IF EXISTS count_change, keep_in_step");
    session.run(table_definition(variant));
    session.run(
        "CREATE TABLE oracle (id bigint PRIMARY KEY, grp integer NOT NULL, src text NOT NULL);"
        "CREATE TABLE audit (id bigint NOT NULL);"
        // The application's sessions set test.application; whoever does not is the backfill.
        "CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        "  IF current_setting('test.application', true) IS NULL THEN"
        "    INSERT INTO public.audit VALUES (NEW.id);"
        "  END IF;"
        "  RETURN NULL;"
        "END$$;"
        "CREATE TRIGGER count_change AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION count_change();");
    if (variant.writers == Writers::trigger) {
        session.run(
            "CREATE FUNCTION keep_in_step() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
            "  IF TG_OP = 'INSERT' OR NEW.src IS DISTINCT FROM OLD.src THEN NEW.dst := upper(NEW.src); END "
            "IF;"
            "  RETURN NEW;"
            "END$$");
        // The rows there are must not be filled by it.
    }
    session.run(
        "INSERT INTO t (id, grp, src, pad) SELECT i, i % 4, 'row ' || i, repeat('x', 20) FROM "
        "generate_series(1, {}) i;"
        "INSERT INTO oracle SELECT id, grp, src FROM t",
        variant.rows);
    session.run("VACUUM ANALYZE t");
    if (variant.writers == Writers::trigger) {
        session.run(
            "CREATE TRIGGER keep_in_step BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION "
            "keep_in_step()");
    }
}

// One application session. It alone writes the ids that leave its number as remainder, so every error that it
// meets would be the backfill's doing.
class Writer {
  public:
    Writer(const std::string& database, const Variant& variant, int number)
        : variant_(variant),
          number_(number),
          random_(static_cast<unsigned>(number) * 7919 + 17),
          session_(database, fmt::format("writer {}", number)) {
        session_.run("SET test.application = '1'; SET synchronous_commit = off");
        for (std::int64_t id = 1; id <= variant.rows; ++id) {
            if (id % writer_count == number) {
                ids_.push_back(id);
            }
        }
        next_id_ = 1'000'000'000 + number;
    }

    // Until told to stop. New groups may appear meanwhile: groups says how many there are.
    void write(const std::atomic<bool>& stop, const std::atomic<int>& groups) {
        while (!stop) {
            auto const start = Clock::now();
            try {
                transaction(groups);
            } catch (const SqlError& error) {
                ++errors;
                if (first_error.empty()) {
                    first_error = error.what();
                }
                (void)session_.attempt("ROLLBACK");
            }
            longest_ms = std::max(longest_ms, ms_since(start));
            if (below(8) == 0) {
                std::this_thread::sleep_for(milliseconds(1));
            }
        }
    }

    int transactions = 0;
    int errors = 0;
    std::string first_error;
    double longest_ms = 0;

  private:
    std::int64_t below(std::int64_t n) {
        return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(n));
    }

    std::string dst_of(const std::string& src) const {
        return variant_.writers == Writers::fill ? fmt::format("upper('{}')", src) : "NULL";
    }

    void transaction(int groups) {
        auto const saved = ids_;  // what a rollback brings back
        bool const keep = below(10) != 0;
        session_.run("BEGIN");
        for (std::int64_t steps = 1 + below(3); steps > 0; --steps) {
            if (below(6) == 0) {
                auto const before = ids_;
                session_.run("SAVEPOINT s");
                step(groups);
                if (below(2) == 0) {
                    session_.run("ROLLBACK TO s");
                    ids_ = before;
                } else {
                    session_.run("RELEASE s");
                }
            } else {
                step(groups);
            }
        }
        if (below(20) == 0) {
            std::this_thread::sleep_for(
                milliseconds(below(30)));  // an application that thinks with its rows locked
        }
        session_.run(keep ? "COMMIT" : "ROLLBACK");
        if (!keep) {
            ids_ = saved;
        }
        ++transactions;
    }

    // One row must be changed, no more, no less.
    void one(const std::string& sql) {
        session_.run(sql);
        if (session_.affected() != 1) {
            throw SqlError("ZZ001", fmt::format("{} rows instead of 1 [{}]", session_.affected(), sql));
        }
    }

    void step(int groups) {
        std::size_t const place = static_cast<std::size_t>(below(static_cast<std::int64_t>(ids_.size())));
        std::int64_t const id = ids_[place];
        switch (below(8)) {
            case 0:
            case 1: {  // a new value
                std::string const src = fmt::format("w{} {}", number_, ++serial_);
                std::string const dst = variant_.writers == Writers::fill ? ", dst = " + dst_of(src) : "";
                one(fmt::format("UPDATE t SET src = '{}'{} WHERE id = {}", src, dst, id));
                one(fmt::format("UPDATE oracle SET src = '{}' WHERE id = {}", src, id));
                break;
            }
            case 2:
            case 3:  // another column: the row's new version lands somewhere else
                one(fmt::format("UPDATE t SET pad = repeat('y', {}) WHERE id = {}", 10 + below(400), id));
                break;
            case 4: {
                std::string const src = fmt::format("n{} {}", number_, ++serial_);
                std::int64_t const grp = below(groups);
                one(fmt::format("INSERT INTO t (id, grp, src, dst) VALUES ({}, {}, '{}', {})", next_id_, grp,
                                src, dst_of(src)));
                one(fmt::format("INSERT INTO oracle VALUES ({}, {}, '{}')", next_id_, grp, src));
                ids_.push_back(next_id_);
                next_id_ += writer_count;
                break;
            }
            case 5:
                one(fmt::format("DELETE FROM t WHERE id = {}", id));
                one(fmt::format("DELETE FROM oracle WHERE id = {}", id));
                ids_[place] = ids_.back();
                ids_.pop_back();
                break;
            case 6: {  // in a partitioned table the row moves to another leaf
                std::int64_t const grp = below(groups);
                one(fmt::format("UPDATE t SET grp = {} WHERE id = {}", grp, id));
                one(fmt::format("UPDATE oracle SET grp = {} WHERE id = {}", grp, id));
                break;
            }
            default:  // held, not changed
                session_.run("SELECT FROM t WHERE id = {} FOR {}", id, below(2) == 0 ? "SHARE" : "UPDATE");
                break;
        }
    }

    const Variant& variant_;
    int number_;
    std::mt19937_64 random_;
    Session session_;
    std::vector<std::int64_t> ids_;
    std::int64_t next_id_ = 0;
    int serial_ = 0;
};

// Disturbs the job in every way that a DBA, or an accident, would.
class Chaos {
  public:
    int pauses = 0;
    int ended = 0;
    int altered = 0;
    std::string unexpected;

    void disturb(const std::string& database, std::int64_t job, const std::atomic<bool>& stop) {
        Session session(database, "chaos");
        std::mt19937 random(4711);
        auto call = [&](const std::string& sql) { return obeyed(session.attempt(sql)); };
        bool going_on = true;
        while (!stop && going_on) {
            switch (random() % 4) {
                case 0:
                    going_on = call(fmt::format("SELECT zdm.pause({})", job));
                    ++pauses;
                    std::this_thread::sleep_for(milliseconds(random() % 60));
                    going_on = going_on && call(fmt::format("SELECT zdm.resume({})", job));
                    break;
                case 1:
                    going_on = end_worker(session, job, random() % 2 == 0);
                    break;
                default:
                    going_on = call(fmt::format("SELECT zdm.alter_job({}, batch_time => '{} ms')", job,
                                                2 + random() % 80));
                    ++altered;
                    break;
            }
            std::this_thread::sleep_for(milliseconds(random() % 250));
        }
    }

  private:
    bool obeyed(const std::string& sqlstate) {
        if (sqlstate == "55000") {
            return false;  // the job has ended
        }
        if (!sqlstate.empty()) {
            unexpected += sqlstate + " ";
        }
        return true;
    }

    // A job whose process vanishes again and again without progress is given up, and rightly so: let it get
    // on between.
    bool end_worker(Session& session, std::int64_t job, bool take_up) {
        std::int64_t const rows =
            session.number(fmt::format("SELECT rows_done FROM zdm.jobs WHERE job_id = {}", job));
        if (rows == last_rows_ && spare_ == 0) {
            return true;
        }
        spare_ -= rows == last_rows_ ? 1 : 0;
        std::int64_t const hit = session.number(fmt::format(
            "SELECT count(pg_terminate_backend(p)) FROM zdm.jobs, unnest(pids) p WHERE job_id = {}", job));
        ended += static_cast<int>(hit);
        last_rows_ = hit > 0 ? rows : last_rows_;
        // Otherwise it comes back by itself.
        return !take_up || obeyed(session.attempt(fmt::format("SELECT zdm.resume({})", job)));
    }

    std::int64_t last_rows_ = -1;
    int spare_ = 2;
};

// A leaf with rows to do and another order of columns comes in while the job runs.
void attach_leaf(Session& session, std::atomic<int>& groups) {
    session.run(
        "BEGIN;"
        "CREATE TABLE late (pad text, gone integer, hits integer NOT NULL DEFAULT 0, src text NOT NULL, dst "
        "text,"
        "  id bigint NOT NULL, grp integer NOT NULL CHECK (grp = 4));"
        "ALTER TABLE late DROP COLUMN gone;"
        "INSERT INTO late (id, grp, src) SELECT 2000000000 + i, 4, 'late ' || i FROM generate_series(1, "
        "3000) i;"
        "INSERT INTO oracle SELECT id, grp, src FROM late;"
        "ALTER TABLE t ATTACH PARTITION late FOR VALUES IN (4);"
        "COMMIT");
    groups = 5;
}

void run_variant(Report& report, const std::string& database, const Variant& variant) {
    Session session(database);
    create_tables(session, variant);

    std::atomic<bool> stop{false};
    std::atomic<int> groups{4};
    std::vector<std::unique_ptr<Writer>> writers;
    std::vector<std::thread> threads;
    for (int i = 0; i < writer_count; ++i) {
        writers.push_back(std::make_unique<Writer>(database, variant, i));
    }
    for (auto& writer : writers) {
        threads.emplace_back([&stop, &groups, w = writer.get()] { w->write(stop, groups); });
    }

    std::int64_t const job = session.number(
        "SELECT zdm.start_backfill('t', 'dst = upper(src), hits = hits + 1', 'dst IS DISTINCT FROM "
        "upper(src)',"
        " batch_time => '20 ms')");
    auto const started = Clock::now();
    Chaos chaos;
    std::thread disturbance;
    if (variant.chaos) {
        disturbance = std::thread([&] { chaos.disturb(database, job, stop); });
    }
    std::string const at_work = fmt::format("SELECT rows_done > 0 FROM zdm.jobs WHERE job_id = {}", job);
    report.check(wait_until(session, at_work), variant.name + ": the job works while the application writes");
    if (variant.partitioned) {
        attach_leaf(session, groups);
    }

    // Where somebody keeps dst in step, the job must end although the application goes on.
    std::string const ended = fmt::format(
        "SELECT state IN ('succeeded', 'failed', 'cancelled') FROM zdm.jobs WHERE job_id = {}", job);
    if (variant.writers != Writers::ignore) {
        report.check(wait_until(session, ended), variant.name + ": the job ends under load");
    }
    auto const least = std::chrono::seconds(variant.seconds);
    while (Clock::now() - started < least) {
        std::this_thread::sleep_for(milliseconds(20));
    }
    stop = true;
    for (auto& thread : threads) {
        thread.join();
    }
    if (disturbance.joinable()) {
        disturbance.join();
        (void)session.attempt(fmt::format("SELECT zdm.resume({})", job));
    }
    bool const done = wait_until(session, ended);
    auto const row = session
                         .rows(fmt::format("SELECT state, rows_done, attempts, coalesce(last_error, ''), "
                                           "coalesce(waiting_for, ''), progress FROM zdm.jobs"
                                           " WHERE job_id = {}",
                                           job))
                         .front();
    report.check(done && row[0] == "succeeded",
                 fmt::format("{}: the job has succeeded{}", variant.name,
                             row[0] == "succeeded" ? "" : fmt::format(": {} {} {}", row[0], row[3], row[4])));

    int transactions = 0;
    int errors = 0;
    double longest = 0;
    std::string first;
    for (auto& writer : writers) {
        transactions += writer->transactions;
        errors += writer->errors;
        longest = std::max(longest, writer->longest_ms);
        first = first.empty() ? writer->first_error : first;
    }
    report.check(errors == 0 && transactions > 0,
                 fmt::format("{}: no statement of the application failed{}", variant.name,
                             errors == 0 ? "" : fmt::format(": {} did, {}", errors, first)));

    report.equal(session.number("SELECT count(*) FROM (SELECT id, grp, src, dst FROM t"
                                " EXCEPT ALL SELECT id, grp, src, upper(src) FROM oracle) x"),
                 std::int64_t{0}, variant.name + ": no row that the oracle does not know");
    report.equal(session.number("SELECT count(*) FROM (SELECT id, grp, src, upper(src) FROM oracle"
                                " EXCEPT ALL SELECT id, grp, src, dst FROM t) x"),
                 std::int64_t{0}, variant.name + ": every row of the oracle is there");
    report.equal(std::stoll(row[1]), static_cast<long long>(session.number("SELECT count(*) FROM audit")),
                 variant.name + ": rows_done is the number of changes");
    // Each change is counted in the row itself as well; rows that the application deleted are gone with their
    // count.
    report.equal(
        session.number("SELECT count(*) FROM t LEFT JOIN (SELECT id, count(*) AS n FROM audit GROUP BY id) a"
                       " USING (id) WHERE t.hits <> coalesce(a.n, 0)"),
        std::int64_t{0}, variant.name + ": no change was lost or made twice");
    if (variant.writers != Writers::ignore) {
        report.equal(
            session.number("SELECT count(*) FROM (SELECT FROM audit GROUP BY id HAVING count(*) > 1) x"),
            std::int64_t{0}, variant.name + ": no row was changed twice");
    }
    if (variant.partitioned) {
        report.check(session.truth("SELECT count(*) > 2000 FROM audit WHERE id > 2000000000"),
                     variant.name + ": the leaf that was attached during the run is done");
    }
    if (variant.chaos) {
        report.check(
            chaos.unexpected.empty() && chaos.pauses + chaos.ended + chaos.altered > 0,
            fmt::format("{}: the job could be controlled all the time {}", variant.name, chaos.unexpected));
    }
    report.note(
        fmt::format("{}: {} rows done, {} transactions of the application, longest {:.0f} ms, {} attempts{}",
                    variant.name, row[1], transactions, longest, row[2],
                    variant.chaos ? fmt::format("; {} pauses, {} workers ended, {} alterations", chaos.pauses,
                                                chaos.ended, chaos.altered)
                                  : ""));
}

}  // namespace

int main() {
    return run_program("oracle", [](Report& report, Database& database) {
        std::string const primary = "ALTER TABLE t ADD PRIMARY KEY (id);";
        std::string const plain = "CREATE INDEX ON t (id);";
        for (const Variant& variant : {
                 Variant{.name = "primary key", .key = primary},
                 Variant{.name = "no key", .key = plain},
                 Variant{.name = "trigger", .key = primary, .writers = Writers::trigger},
                 Variant{.name = "dirty writers", .key = primary, .writers = Writers::ignore},
                 Variant{.name = "partitioned", .key = plain, .partitioned = true},
                 Variant{.name = "chaos", .key = primary, .chaos = true, .rows = 80'000},
                 Variant{.name = "partitioned chaos with trigger",
                 .key = plain,
                 .partitioned = true,
                 .writers = Writers::trigger,
                 .chaos = true,
                 .rows = 80'000},
             }) {
            run_variant(report, database.name(), variant);
        }
    });
}
