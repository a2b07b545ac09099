// jobs: what SQL calls. Decode, call, encode, nothing else.
#include "core/job_state.hpp"
#include "jobs/arguments.hpp"
#include "jobs/control.hpp"
#include "jobs/settings.hpp"
#include "jobs/store.hpp"
#include "pg/export.hpp"
#include "pg/lock.hpp"
#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

using namespace zdm;

namespace {

Datum text_datum(const std::string& value) {
    const char* raw = value.c_str();
    return pg::guard([&] { return CStringGetTextDatum(raw); });
}

Datum control(FunctionCallInfo fcinfo, core::ControlCall call) {
    return pg::entry([&] {
        return text_datum(jobs::control_job(call, jobs::required_bigint(fcinfo, 0, "job_id")));
    });
}

}  // namespace

ZDM_FUNCTION(zdm_pause) { return control(fcinfo, core::ControlCall::pause); }
ZDM_FUNCTION(zdm_resume) { return control(fcinfo, core::ControlCall::resume); }
ZDM_FUNCTION(zdm_cancel) { return control(fcinfo, core::ControlCall::cancel); }
ZDM_FUNCTION(zdm_retry) { return control(fcinfo, core::ControlCall::retry); }

ZDM_FUNCTION(zdm_pause_all) {
    return pg::entry([&]() -> Datum {
        jobs::hold_all(true);
        PG_RETURN_VOID();
    });
}

ZDM_FUNCTION(zdm_resume_all) {
    return pg::entry([&]() -> Datum {
        jobs::hold_all(false);
        PG_RETURN_VOID();
    });
}

ZDM_FUNCTION(zdm_alter_job) {
    return pg::entry([&]() -> Datum {
        auto const job_id = jobs::required_bigint(fcinfo, 0, "job_id");
        jobs::alter_options(job_id, jobs::option_arguments(fcinfo, 1));
        PG_RETURN_VOID();
    });
}

ZDM_FUNCTION(zdm_require) {
    return pg::entry([&]() -> Datum {
        jobs::require_succeeded(jobs::required_text(fcinfo, 0, "name"));
        PG_RETURN_VOID();
    });
}

ZDM_FUNCTION(zdm_wait) {
    return pg::entry([&]() -> Datum {
        auto const job_id = jobs::required_bigint(fcinfo, 0, "job_id");
        std::int64_t timeout_ms = -1;
        if (!PG_ARGISNULL(1)) {
            timeout_ms = jobs::interval_ms(PG_GETARG_INTERVAL_P(1), "timeout");
            if (timeout_ms < 0) {
                throw pg::Error(ERRCODE_INVALID_PARAMETER_VALUE, "timeout must not be negative")
                    .hint("NULL waits without end.");
            }
        }
        bool const atomic = fcinfo->context == nullptr || !IsA(fcinfo->context, CallContext) ||
                            reinterpret_cast<CallContext*>(fcinfo->context)->atomic;
        jobs::wait_for_job(job_id, timeout_ms, atomic);
        PG_RETURN_VOID();
    });
}

ZDM_FUNCTION(zdm_job_alive) {
    if (PG_ARGISNULL(0) || RecoveryInProgress()) {
        PG_RETURN_NULL();
    }
    return pg::entry([&]() -> Datum {
        auto const id = static_cast<std::uint64_t>(PG_GETARG_INT64(0));
        LOCKTAG const tag = pg::lock_tag(pg::LockSpace::job, id);
        PG_RETURN_BOOL(compat::lock_held_by_me(&tag, pg::mode_run) || pg::held_by_other(pg::LockSpace::job, id));
    });
}

ZDM_FUNCTION(zdm_job_moved_on) {
    if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || RecoveryInProgress()) {
        PG_RETURN_BOOL(false);
    }
    return pg::entry([&]() -> Datum { PG_RETURN_BOOL(jobs::moved_on(PG_GETARG_INT64(0), PG_GETARG_INT64(1))); });
}

ZDM_FUNCTION(zdm_home) {
    return pg::entry([&] { return text_datum(jobs::home()); });
}

ZDM_FUNCTION(zdm_enabled) { PG_RETURN_BOOL(jobs::enabled()); }

ZDM_FUNCTION(zdm_shown_state) {
    if (PG_ARGISNULL(0) || PG_ARGISNULL(1)) {
        PG_RETURN_NULL();
    }
    return pg::entry([&]() -> Datum {
        auto const recorded = core::parse_job_state(*jobs::text_argument(fcinfo, 0));
        auto const request = core::parse_request(*jobs::text_argument(fcinfo, 1));
        if (!recorded || !request) {
            throw pg::Error(ERRCODE_INVALID_PARAMETER_VALUE, "not a recorded state or not a request");
        }
        // On a standby nothing is known of processes: the recorded state is taken at its word.
        bool const alive = PG_ARGISNULL(2) ? *recorded == core::JobState::running : PG_GETARG_BOOL(2);
        return text_datum(std::string(core::to_string(core::shown_state(*recorded, *request, alive))));
    });
}
