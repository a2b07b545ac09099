// Promise: every SQLSTATE of our own is named here, and every SQLSTATE of the server gets exactly one
// verdict.
#pragma once

#include <array>
#include <string_view>

namespace zdm::core {

// Our own codes: class ZD, which neither the SQL standard nor PostgreSQL uses.
namespace sqlstate {
inline constexpr std::string_view job_failed_dependency = "ZD001";
inline constexpr std::string_view not_converging = "ZD002";
inline constexpr std::string_view rows_remain = "ZD003";
inline constexpr std::string_view crashed_repeatedly = "ZD004";
inline constexpr std::string_view job_cancelled = "ZD005";
inline constexpr std::string_view job_not_succeeded = "ZD006";
inline constexpr std::string_view lost_job = "ZD007";
inline constexpr std::string_view wait_timeout = "ZD008";

struct OwnCode {
    std::string_view code;
    std::string_view name;
    std::string_view meaning;
};

inline constexpr std::array<OwnCode, 8> own_codes{{
    {job_failed_dependency, "job_failed_dependency", "a job it depends on failed or was cancelled"},
    {not_converging, "not_converging", "a row still matches after its update"},
    {rows_remain, "rows_remain", "rows were skipped after errors and remain"},
    {crashed_repeatedly, "crashed_repeatedly", "the job's process vanished again and again without progress"},
    {job_cancelled, "job_cancelled", "the job was cancelled"},
    {job_not_succeeded, "job_not_succeeded", "zdm.require: the job of that name has not succeeded"},
    {lost_job, "lost_job", "another process took the job"},
    {wait_timeout, "wait_timeout", "the job did not end within the timeout of zdm.wait"},
}};
}  // namespace sqlstate

// What to do about an error that a statement of a job raised.
enum class Verdict {
    retry_lock,  // somebody else was first: try again for ever, backing off (up to a minute)
    retry_soon,  // a serialization failure or a deadlock that we lost: the same batch will do in a moment
    retry_slow,  // the server is in trouble or in recovery: give it time, then give up
    bad_row,     // most likely one row's data: bisect to find it
    permanent,   // the statement or the state is wrong: trying again cannot help
};

// The verdict for a SQLSTATE. Total: an unknown class is bad_row (bisection then tells a row's error from a
// statement's); what is not five characters is permanent. Codes: PostgreSQL's appendix "Error Codes".
//
// Class 42 (syntax, missing objects, privileges) is permanent although a row-level policy or a trigger may
// raise it, 42501 above all, for one row only. SQLSTATE alone cannot tell: a backfill that wants to know
// bisects, and treats it as a bad row where a smaller batch succeeds.
Verdict classify(std::string_view sqlstate);

}  // namespace zdm::core
