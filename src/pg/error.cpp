#include "pg/error.hpp"

#include <cstring>
#include <new>

#include "pg/postgres.hpp"

namespace zdm::pg {

PgError::~PgError() {
    if (context_ != nullptr) {
        MemoryContextDelete(context_);
    }
}

ErrorData* PgError::release_to(MemoryContext parent) noexcept {
    MemoryContextSetParent(context_, parent);
    context_ = nullptr;
    return std::exchange(data_, nullptr);
}

std::string sqlstate_text(int sqlerrcode) { return unpack_sql_state(sqlerrcode); }

int sqlstate_code(std::string_view text) {
    if (text.size() != 5) {
        return ERRCODE_INTERNAL_ERROR;
    }
    return MAKE_SQLSTATE(text[0], text[1], text[2], text[3], text[4]);
}

Error::Error(int sqlerrcode, std::string message) : sqlerrcode_(sqlerrcode) {
    failure_.sqlstate = sqlstate_text(sqlerrcode);
    failure_.message = std::move(message);
}

Error::Error(core::Failure failure) : sqlerrcode_(sqlstate_code(failure.sqlstate)), failure_(std::move(failure)) {}

core::Failure current_failure() {
    auto text = [](const char* s) { return std::string(s == nullptr ? "" : s); };
    try {
        throw;
    } catch (const PgError& e) {
        const ErrorData& d = e.data();
        return {sqlstate_text(d.sqlerrcode), text(d.message), text(d.detail), text(d.hint), text(d.context)};
    } catch (const Error& e) {
        return e.failure();
    } catch (const std::bad_alloc&) {
        return {"53200", "out of memory", "", "", ""};
    } catch (const std::exception& e) {
        return {"XX000", e.what(), "", "", ""};
    } catch (...) {
        return {"XX000", "unknown C++ exception", "", "", ""};
    }
}

namespace detail {

void throw_current_error(MemoryContext caller_context) {
    // The copy lives in a context of its own, so that it survives the abort of the transaction that failed and is
    // freed as one piece.
    MemoryContext context = AllocSetContextCreate(TopMemoryContext, "zdm error", ALLOCSET_SMALL_SIZES);
    MemoryContextSwitchTo(context);
    ErrorData* data = CopyErrorData();
    FlushErrorState();
    MemoryContextSwitchTo(caller_context);
    throw PgError(context, data);
}

namespace {

// An ErrorData of our own in a context of its own. No C++ allocation here: what throws in capture_current_exception()
// ends the server. Allocation of the server's may raise out of memory: acceptable, the caller is raising.
ErrorData* make_error_data(MemoryContext parent, int sqlerrcode, const char* message, const char* detail = "",
                           const char* hint = "", const char* error_context = "") {
    MemoryContext context = AllocSetContextCreate(parent, "zdm error", ALLOCSET_SMALL_SIZES);
    MemoryContext const old = MemoryContextSwitchTo(context);
    auto* data = static_cast<ErrorData*>(palloc0(sizeof(ErrorData)));
    auto copy = [](const char* s) { return *s == '\0' ? nullptr : pstrdup(s); };
    data->elevel = ERROR;
    data->output_to_server = true;
    data->output_to_client = true;
    data->sqlerrcode = sqlerrcode;
    data->message = pstrdup(message);
    data->detail = copy(detail);
    data->hint = copy(hint);
    data->context = copy(error_context);
    data->assoc_context = context;
    MemoryContextSwitchTo(old);
    return data;
}

// Lives as long as the (sub)transaction that the raise is about to abort.
MemoryContext doomed_context() { return CurTransactionContext != nullptr ? CurTransactionContext : ErrorContext; }

}  // namespace

void capture_current_exception(Caught& caught) noexcept {
    try {
        throw;
    } catch (PgError& e) {
        caught.data = e.release_to(doomed_context());
    } catch (const Error& e) {
        const core::Failure& f = e.failure();
        caught.data = make_error_data(doomed_context(), e.sqlerrcode(), f.message.c_str(), f.detail.c_str(),
                                      f.hint.c_str(), f.context.c_str());
    } catch (const std::bad_alloc&) {
        caught.data = make_error_data(doomed_context(), ERRCODE_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& e) {
        caught.data = make_error_data(doomed_context(), ERRCODE_INTERNAL_ERROR, e.what());
    } catch (...) {
        caught.data = make_error_data(doomed_context(), ERRCODE_INTERNAL_ERROR, "unknown C++ exception");
    }
}

void raise(const Caught& caught) {
    // ReThrowError keeps every field of an error that came from the server, its place in the source included; our
    // own errors have no place, so they go through ereport, which also adds the context of the callers.
    if (caught.data->filename != nullptr) {
        ReThrowError(caught.data);
    }
    const ErrorData* d = caught.data;
    ereport(ERROR, (errcode(d->sqlerrcode), errmsg_internal("%s", d->message),
                    d->detail ? errdetail_internal("%s", d->detail) : 0, d->hint ? errhint("%s", d->hint) : 0,
                    d->context ? errcontext_msg("%s", d->context) : 0));
    pg_unreachable();
}

}  // namespace detail
}  // namespace zdm::pg
