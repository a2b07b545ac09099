// Errors on their way through C++ frames, in both directions.
#include "boundary.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <new>
#include <optional>
#include <stdexcept>
#include <vector>

#include "pg/error.hpp"
#include "pg/export.hpp"
#include "pg/lock.hpp"
#include "pg/memory.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

#pragma GCC visibility push(default)
extern "C" {
PG_MODULE_MAGIC;
}
#pragma GCC visibility pop

namespace pg = zdm::pg;
using boundary::argument;
using boundary::Counted;
using boundary::result;

namespace boundary {

std::string argument(FunctionCallInfo fcinfo, int n) {
    const char* value = pg::guard([&] { return text_to_cstring(PG_GETARG_TEXT_PP(n)); });
    return value;
}

Datum result(const std::string& s) {
    return pg::guard([&] { return PointerGetDatum(cstring_to_text_with_len(s.data(), static_cast<int>(s.size()))); });
}

namespace {

// Runs a statement below `depth` C++ frames, each with an object to destroy.
std::string descend(const std::string& sql, int depth) {
    Counted counted;
    if (depth > 1) {
        return descend(sql, depth - 1);
    }
    pg::Spi spi;
    auto rows = pg::query_once(sql);
    return rows.empty() ? std::string() : pg::as_string(rows.front().front());
}

// Memory of the process is gone; given back when the (sub)transaction aborts.
std::vector<void*>* hog = nullptr;
rlimit before_hog;

void feed(SubXactEvent event, SubTransactionId, SubTransactionId, void*) {
    if (hog != nullptr && event == SUBXACT_EVENT_ABORT_SUB) {
        setrlimit(RLIMIT_AS, &before_hog);
        for (void* p : *hog) {
            std::free(p);
        }
        delete std::exchange(hog, nullptr);
    }
}

void starve() {
    static bool registered = false;
    if (!registered) {
        pg::guard([] { RegisterSubXactCallback(feed, nullptr); });
        registered = true;
    }
    hog = new std::vector<void*>;
    hog->reserve(1U << 20);
    getrlimit(RLIMIT_AS, &before_hog);
    rlimit none = before_hog;
    none.rlim_cur = 1;
    setrlimit(RLIMIT_AS, &none);
    for (std::size_t size = 1U << 20; size >= 16; size /= 2) {
        while (void* p = std::malloc(size)) {
            hog->push_back(p);
        }
    }
}

[[noreturn]] void throw_kind(const std::string& kind) {
    Counted counted;
    if (kind == "error") {
        throw pg::Error(ERRCODE_OBJECT_IN_USE, "own message").detail("own detail").hint("own hint");
    }
    if (kind == "bare") {
        throw pg::Error(pg::sqlstate_code("ZD006"), "own message with a %s in it");
    }
    if (kind == "failure") {
        throw pg::Error(zdm::core::Failure{"ZD006", "kept message", "kept detail", "kept hint", "kept context"});
    }
    if (kind == "std") {
        throw std::runtime_error("std message");
    }
    if (kind == "bad_alloc") {
        std::size_t volatile huge = std::size_t(1) << 62;
        std::vector<char> never(huge);
    }
    if (kind == "int") {
        throw 42;
    }
    if (kind == "starved") {
        pg::Error error = pg::Error(ERRCODE_OBJECT_IN_USE, std::string(200, 'm')).detail(std::string(200, 'd'));
        starve();
        throw error;
    }
    if (kind == "nested guard") {
        // A guarded closure that calls a helper which guards again: the inner PgError passes the outer guard's frame.
        try {
            pg::guard([] { pg::guard([] { elog(ERROR, "inner"); }); });
        } catch (const pg::PgError&) {
        }
        pg::guard([] { elog(ERROR, "after a nested guard"); });
    }
    if (kind == "guard") {
        pg::guard([] {
            ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE), errmsg("guarded message"), errdetail("guarded detail")));
        });
    }
    throw std::logic_error("unknown kind");
}

}  // namespace
}  // namespace boundary

// pass(sql, depth): the first value of a statement that runs below C++ frames.
ZDM_FUNCTION(boundary_pass) {
    return pg::entry([&] { return result(boundary::descend(argument(fcinfo, 0), PG_GETARG_INT32(1))); });
}

// throws(kind)
ZDM_FUNCTION(boundary_throws) {
    return pg::entry([&]() -> Datum { boundary::throw_kind(argument(fcinfo, 0)); });
}

// handled(sql): runs it in a subtransaction, catches what it raises, rolls back, goes on: 'SQLSTATE message', or 'ok'.
ZDM_FUNCTION(boundary_handled) {
    return pg::entry([&] {
        std::string const sql = argument(fcinfo, 0);
        std::string outcome = "ok";
        std::optional<pg::Spi> spi(std::in_place);
        MemoryContext const context = CurrentMemoryContext;
        ResourceOwner const owner = CurrentResourceOwner;
        pg::guard([] { BeginInternalSubTransaction(nullptr); });
        MemoryContextSwitchTo(context);
        try {
            Counted counted;
            pg::query_once(sql);
            pg::guard([] { ReleaseCurrentSubTransaction(); });
        } catch (...) {
            auto const failure = pg::current_failure();
            outcome = failure.sqlstate + " " + failure.message;
            pg::guard([] { RollbackAndReleaseCurrentSubTransaction(); });
        }
        MemoryContextSwitchTo(context);
        CurrentResourceOwner = owner;
        // The transaction goes on: this must work.
        auto rows = pg::query("SELECT 'alive'");
        spi.reset();  // its memory goes with it: results are made after it
        return result(outcome + ", " + pg::as_string(rows.front().front()));
    });
}

ZDM_FUNCTION(boundary_live) { return Int64GetDatum(Counted::live); }
ZDM_FUNCTION(boundary_died) { return Int64GetDatum(Counted::died); }

// Under AddressSanitizer, which ends the process where it cannot allocate.
ZDM_FUNCTION(boundary_sanitized) {
#ifdef __SANITIZE_ADDRESS__
    PG_RETURN_BOOL(true);
#else
    PG_RETURN_BOOL(false);
#endif
}

// Memory of the process that is not shared, in kB; NULL under a sanitizer, which keeps what was freed.
ZDM_FUNCTION(boundary_rss) {
#ifdef __SANITIZE_ADDRESS__
    PG_RETURN_NULL();
#endif
    return pg::entry([&] {
        std::ifstream status("/proc/self/status");
        std::string word;
        std::int64_t kb = 0;
        while (status >> word) {
            if (word == "RssAnon:") {
                status >> kb;
                break;
            }
        }
        return Int64GetDatum(kb);
    });
}

// parameters(n): a statement with n parameters.
ZDM_FUNCTION(boundary_parameters) {
    return pg::entry([&] {
        std::vector<pg::Text> values(static_cast<std::size_t>(PG_GETARG_INT32(0)), pg::text("v"));
        std::string got;
        {
            pg::Spi spi;
            got = pg::as_string(pg::query("SELECT 'ran'", values).front().front());
        }
        return result(got);
    });
}
