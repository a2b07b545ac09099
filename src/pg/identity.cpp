#include "pg/identity.hpp"

#include <cstring>

#include "pg/transaction.hpp"
#include "pg/postgres.hpp"

namespace zdm::pg {

Extension find_extension() {
    return guard([] {
        Extension found;
        Oid const oid = get_extension_oid("zdm_ext", true);
        if (!OidIsValid(oid)) {
            return found;
        }
        Oid const schema = get_namespace_oid("zdm", true);
        Oid const table = OidIsValid(schema) ? get_relname_relid("job", schema) : InvalidOid;
        if (!OidIsValid(table) || getExtensionOfObject(RelationRelationId, table) != oid) {
            return found;
        }
        HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
        if (!HeapTupleIsValid(tuple)) {
            return found;
        }
        auto* form = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple));
        found.owner = form->relowner;
        found.undecoded = OidIsValid(form->relrewrite);
        ReleaseSysCache(tuple);
        found.oid = oid;
        found.schema = schema;
        found.job_table = table;
        return found;
    });
}

Extension lock_extension() {
    Extension const seen = find_extension();
    if (!OidIsValid(seen.oid)) {
        return seen;
    }
    guard([&] { LockDatabaseObject(ExtensionRelationId, seen.oid, 0, AccessShareLock); });
    return find_extension();  // it may have gone while we waited
}

bool version_matches(Oid extension) {
    return guard([&] {
        Relation relation = table_open(ExtensionRelationId, AccessShareLock);
        ScanKeyData key;
        ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(extension));
        SysScanDesc scan = systable_beginscan(relation, ExtensionOidIndexId, true, nullptr, 1, &key);
        HeapTuple tuple = systable_getnext(scan);
        bool same = false;
        if (HeapTupleIsValid(tuple)) {
            bool null = false;
            Datum const version = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(relation), &null);
            same = !null && std::strcmp(text_to_cstring(reinterpret_cast<::text*>(PG_DETOAST_DATUM_PACKED(version))), ZDM_VERSION) == 0;
        }
        systable_endscan(scan);
        table_close(relation, AccessShareLock);
        return same;
    });
}

Bookkeeping::Bookkeeping() {
    Extension const extension = find_extension();
    if (!OidIsValid(extension.oid)) {
        throw Error(ERRCODE_UNDEFINED_OBJECT, "extension \"zdm_ext\" is not installed in this database")
            .hint("Run CREATE EXTENSION zdm_ext.");
    }
    GetUserIdAndSecContext(&user_, &security_context_);
    SetUserIdAndSecContext(extension.owner,
                           security_context_ | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
    guc_level_ = NewGUCNestLevel();
    guard([] {
        (void)set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
                                true, 0, false);
        if (!Array_nulls) {
            // Our array literals say NULL and mean it.
            (void)set_config_option("array_nulls", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
        }
    });
}

Bookkeeping::~Bookkeeping() {
    AtEOXact_GUC(true, guc_level_);
    SetUserIdAndSecContext(user_, security_context_);
}

void force_deferred() {
    guard([] {
        auto* statement = makeNode(ConstraintsSetStmt);
        statement->constraints = NIL;  // ALL
        statement->deferred = false;
        AfterTriggerSetState(statement);
    });
}

ScopedSetting::ScopedSetting(const char* name, const char* value) : guc_level_(NewGUCNestLevel()) {
    guard([&] {
        (void)set_config_option(name, value, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
                                true, 0, false);
    });
}

ScopedSetting::~ScopedSetting() { AtEOXact_GUC(true, guc_level_); }

void set_local(const char* name, const char* value) {
    guard([&] {
        (void)set_config_option(name, value, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
                                true, 0, false);
    });
}

}  // namespace zdm::pg
