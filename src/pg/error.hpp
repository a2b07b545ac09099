// Where errors cross between C++ (exceptions) and PostgreSQL (longjmp). Three helpers, and no fourth way:
//   guard(f)    around every PostgreSQL call that can raise: an ERROR becomes a thrown PgError.
//   entry(f)    around everything PostgreSQL calls: a thrown exception becomes an ERROR.
//   callback(f) around transaction and exit callbacks, where an ERROR would be a PANIC.
// SQLSTATE, message, DETAIL, HINT and CONTEXT survive both crossings.
#pragma once

#include <csetjmp>
#include <exception>
#include <string>
#include <type_traits>
#include <utility>

#include "core/failure.hpp"
#include "pg/postgres.hpp"

namespace zdm::pg {

// An ERROR of the server, caught by guard(). Owns the error data in a memory context of its own.
class PgError : public std::exception {
  public:
    explicit PgError(MemoryContext context, ErrorData* data) noexcept : context_(context), data_(data) {}
    PgError(PgError&& other) noexcept
        : context_(std::exchange(other.context_, nullptr)), data_(std::exchange(other.data_, nullptr)) {}
    PgError(const PgError&) = delete;
    PgError& operator=(const PgError&) = delete;
    PgError& operator=(PgError&&) = delete;
    ~PgError() override;

    const ErrorData& data() const noexcept { return *data_; }
    int sqlerrcode() const noexcept { return data_->sqlerrcode; }
    const char* what() const noexcept override { return data_->message ? data_->message : "unknown error"; }

    // Hands the error data over to a longer-lived memory context and forgets them; for entry() alone.
    ErrorData* release_to(MemoryContext parent) noexcept;

  private:
    MemoryContext context_;
    ErrorData* data_;
};

// An error that we raise ourselves: throw Error(ERRCODE_..., "message").detail(...).hint(...).
class Error : public std::exception {
  public:
    Error(int sqlerrcode, std::string message);
    Error&& detail(std::string text) && {
        failure_.detail = std::move(text);
        return std::move(*this);
    }
    Error&& hint(std::string text) && {
        failure_.hint = std::move(text);
        return std::move(*this);
    }
    // Rebuilds a recorded failure (a job's own error, raised again by zdm.wait).
    explicit Error(core::Failure failure);

    int sqlerrcode() const noexcept { return sqlerrcode_; }
    const core::Failure& failure() const noexcept { return failure_; }
    const char* what() const noexcept override { return failure_.message.c_str(); }

  private:
    int sqlerrcode_;
    core::Failure failure_;
};

// The exception being handled, as plain strings. Call inside a catch block; rethrows nothing.
core::Failure current_failure();

// SQLSTATE as five characters, and back.
std::string sqlstate_text(int sqlerrcode);
int sqlstate_code(std::string_view text);

namespace detail {

// The jump has landed: copies the error out, restores the stacks, throws PgError.
[[noreturn]] void throw_current_error(MemoryContext caller_context);

// What entry() keeps of an exception while it leaves the catch block: trivially destructible, because the raise
// that follows jumps over this frame.
struct Caught {
    ErrorData* data = nullptr;
};
void capture_current_exception(Caught& caught) noexcept;
[[noreturn]] void raise(const Caught& caught);

}  // namespace detail

// Runs f, which may call PostgreSQL functions that raise. f's frame is jumped over on an ERROR, so f must hold no
// object with a destructor: it captures by reference, and its result is trivially copyable.
// After a PgError the transaction is doomed: rethrow, or abort a subtransaction or the transaction.
template <class F>
std::invoke_result_t<F&> guard(F&& f) {
    using Result = std::invoke_result_t<F&>;
    static_assert(std::is_trivially_destructible_v<std::remove_reference_t<F>>,
                  "a guarded closure must capture by reference: the jump skips destructors");
    static_assert(std::is_void_v<Result> || std::is_trivially_copyable_v<Result>,
                  "a guarded result must be trivially copyable");
    MemoryContext const caller_context = CurrentMemoryContext;
    sigjmp_buf* const saved_exceptions = PG_exception_stack;
    ErrorContextCallback* const saved_contexts = error_context_stack;
    sigjmp_buf landing;
    if (sigsetjmp(landing, 0) == 0) {
        PG_exception_stack = &landing;
        try {
            if constexpr (std::is_void_v<Result>) {
                f();
                PG_exception_stack = saved_exceptions;
                error_context_stack = saved_contexts;
                return;
            } else {
                Result result = f();
                PG_exception_stack = saved_exceptions;
                error_context_stack = saved_contexts;
                return result;
            }
        } catch (...) {
            // f guards again, or throws: the landing of this frame must not outlive it.
            PG_exception_stack = saved_exceptions;
            error_context_stack = saved_contexts;
            MemoryContextSwitchTo(caller_context);
            throw;
        }
    }
    PG_exception_stack = saved_exceptions;
    error_context_stack = saved_contexts;
    detail::throw_current_error(caller_context);
}

// Runs f for PostgreSQL: SQL-callable functions, worker mains, hooks. Whatever f throws is raised as an ERROR, after
// the catch block has been left (raising inside it would leak the exception object).
template <class F>
std::invoke_result_t<F&> entry(F&& f) {
    detail::Caught caught;
    try {
        return f();
    } catch (...) {
        detail::capture_current_exception(caught);
    }
    detail::raise(caught);
}

// Runs f where nothing may be raised. What f throws is dropped: f reports by other means.
template <class F>
void callback(F&& f) noexcept {
    try {
        f();
    } catch (...) {
    }
}

}  // namespace zdm::pg
