// Who runs a piece of SQL. User, security flags and search_path always switch together: switching the user alone lets
// an operator in the job's search_path run with our rights.
#pragma once

#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace zdm::pg {

// The extension as the catalogs show it now. `job_table` identifies this very creation of the extension: DROP and
// CREATE EXTENSION give a new one.
struct Extension {
    Oid oid = InvalidOid;
    Oid schema = InvalidOid;
    Oid job_table = InvalidOid;
    Oid owner = InvalidOid;
    bool undecoded = false;  // its tables carry the mark that keeps them out of logical decoding
};

// Looks the extension up. The tables must belong to it: anybody can make a schema of the same name where the
// extension is absent. `oid` is invalid when it is not installed. Needs a transaction.
Extension find_extension();

// As find_extension(), and keeps DROP and ALTER EXTENSION out until the end of the transaction. They take the extension's
// own lock before those of its tables, so a transaction that begins with this one cannot deadlock with them.
Extension lock_extension();

// Is the catalog's version this library's? A new library over old tables must not touch them.
bool version_matches(Oid extension);

// Runs as the extension's owner on the extension's own tables: restricted operation, search_path pinned to
// pg_catalog, pg_temp. No user code may run inside this scope; deferred work is forced before it.
class Bookkeeping {
  public:
    Bookkeeping();  // raises undefined_object when the extension is gone
    ~Bookkeeping();
    Bookkeeping(const Bookkeeping&) = delete;
    Bookkeeping& operator=(const Bookkeeping&) = delete;

  private:
    Oid user_;
    int security_context_;
    int guc_level_;
};

// Runs user SQL as `role` so that it cannot become anybody else: SET ROLE and RESET ROLE are refused inside.
class AsRole {
  public:
    explicit AsRole(Oid role) noexcept {
        GetUserIdAndSecContext(&user_, &security_context_);
        SetUserIdAndSecContext(role, security_context_ | SECURITY_LOCAL_USERID_CHANGE);
    }
    ~AsRole() { SetUserIdAndSecContext(user_, security_context_); }
    AsRole(const AsRole&) = delete;
    AsRole& operator=(const AsRole&) = delete;

  private:
    Oid user_;
    int security_context_;
};

// Runs every constraint trigger that user SQL deferred, now, as the current user. To be called before the role that
// queued them is left.
void force_deferred();

// A setting that holds for the life of the object, as a function's SET clause does.
class ScopedSetting {
  public:
    ScopedSetting(const char* name, const char* value);
    ~ScopedSetting();
    ScopedSetting(const ScopedSetting&) = delete;
    ScopedSetting& operator=(const ScopedSetting&) = delete;

  private:
    int guc_level_;
};

// SET LOCAL name = value, by the current user's rights.
void set_local(const char* name, const char* value);

}  // namespace zdm::pg
