// What the client programs share: a connection, a database of their own, bounded polling, and a report in
// lines of "ok - ..." and "not ok - ...". The environment (PGHOST, PGPORT, PGUSER, PGDATABASE) names the
// server.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <libpq-fe.h>

namespace client {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

inline double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

struct SqlError : std::runtime_error {
    SqlError(std::string state, const std::string& message)
        : std::runtime_error(fmt::format("{} {}", state, message)), sqlstate(std::move(state)) {}
    std::string sqlstate;
};

using Row = std::vector<std::string>;  // NULL reads as ""

class Session {
  public:
    explicit Session(const std::string& database = "", const std::string& application = "client") {
        std::string const name = database.empty() ? environment_database() : database;
        const char* const keys[] = {"dbname", "application_name", nullptr};
        const char* const values[] = {name.c_str(), application.c_str(), nullptr};
        connection_ = PQconnectdbParams(keys, values, 1);
        if (PQstatus(connection_) != CONNECTION_OK) {
            std::string const problem = PQerrorMessage(connection_);
            PQfinish(connection_);
            throw SqlError("08006", problem);
        }
        PQsetNoticeProcessor(
            connection_, [](void* self, const char* text) { static_cast<Session*>(self)->notices_ += text; },
            this);
    }
    ~Session() { PQfinish(connection_); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    std::vector<Row> rows(const std::string& sql) {
        PGresult* const result = PQexec(connection_, sql.c_str());
        ExecStatusType const status = PQresultStatus(result);
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
            const char* const state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
            const char* const message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
            SqlError error(
                state == nullptr ? "08006" : state,
                fmt::format("{} [{}]", message == nullptr ? PQerrorMessage(connection_) : message, sql));
            PQclear(result);
            throw error;
        }
        std::vector<Row> answer;
        for (int i = 0; i < PQntuples(result); ++i) {
            Row& row = answer.emplace_back();
            for (int j = 0; j < PQnfields(result); ++j) {
                row.emplace_back(PQgetvalue(result, i, j));
            }
        }
        const char* const count = PQcmdTuples(result);
        affected_ = *count == '\0' ? 0 : std::stoll(count);
        PQclear(result);
        return answer;
    }
    // Rows that the last command changed.
    std::int64_t affected() const { return affected_; }

    void run(const std::string& sql) { (void)rows(sql); }

    template <class... Args>
    void run(fmt::format_string<Args...> format, Args&&... args) {
        (void)rows(fmt::format(format, std::forward<Args>(args)...));
    }

    std::string value(const std::string& sql) {
        auto const answer = rows(sql);
        return answer.empty() || answer.front().empty() ? std::string() : answer.front().front();
    }
    std::int64_t number(const std::string& sql) {
        std::string const text = value(sql);
        return text.empty() ? 0 : std::stoll(text);
    }
    bool truth(const std::string& sql) { return value(sql) == "t"; }

    // What the server said besides.
    const std::string& notices() const { return notices_; }
    int pid() const { return PQbackendPID(connection_); }

    // The SQLSTATE of the error, "" when there was none.
    std::string attempt(const std::string& sql) {
        try {
            run(sql);
            return "";
        } catch (const SqlError& error) {
            return error.sqlstate;
        }
    }

  private:
    static std::string environment_database() {
        const char* const name = std::getenv("PGDATABASE");
        return name == nullptr ? "postgres" : name;
    }
    PGconn* connection_ = nullptr;
    std::int64_t affected_ = 0;
    std::string notices_;
};

// True once the query says true; false when the deadline passes first.
inline bool wait_until(Session& session, const std::string& sql, milliseconds limit = milliseconds(60'000),
                       milliseconds pause = milliseconds(20)) {
    auto const end = Clock::now() + limit;
    for (;;) {
        if (session.truth(sql)) {
            return true;
        }
        if (Clock::now() > end) {
            return false;
        }
        std::this_thread::sleep_for(pause);
    }
}

class Report {
  public:
    bool check(bool passed, const std::string& what) {
        std::lock_guard const guard(mutex_);
        std::printf("%s - %s\n", passed ? "ok" : "not ok", what.c_str());
        std::fflush(stdout);
        failed_ = failed_ || !passed;
        return passed;
    }
    template <class Value>
    bool equal(const Value& got, const Value& wanted, const std::string& what) {
        return got == wanted ? check(true, what)
                             : check(false, fmt::format("{}: {} is not {}", what, got, wanted));
    }
    void note(const std::string& text) {
        std::lock_guard const guard(mutex_);
        std::printf("# %s\n", text.c_str());
        std::fflush(stdout);
    }
    bool failed() const { return failed_; }

  private:
    std::mutex mutex_;
    bool failed_ = false;
};

// A database of the program's own, with the extension; dropped at the end, whatever runs in it.
class Database {
  public:
    explicit Database(const std::string& program) : name_(fmt::format("zdm_{}_{}", program, getpid())) {
        Session().run("CREATE DATABASE {}", name_);
        Session(name_).run("CREATE EXTENSION zdm_ext");
    }
    ~Database() {
        try {
            Session().run("DROP DATABASE {} WITH (FORCE)", name_);
        } catch (const std::exception& error) {
            std::printf("# %s\n", error.what());
        }
    }
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;
    const std::string& name() const { return name_; }

  private:
    std::string name_;
};

// Runs the program; an exception that nobody expected fails it.
inline int run_program(const std::string& program, const std::function<void(Report&, Database&)>& body) {
    Report report;
    auto const start = Clock::now();
    try {
        Database database(program);
        body(report, database);
    } catch (const std::exception& error) {
        report.check(false, fmt::format("{}: {}", program, error.what()));
    }
    report.note(fmt::format("{}: {:.1f} s", program, ms_since(start) / 1000));
    return report.failed() ? 1 : 0;
}

}  // namespace client
