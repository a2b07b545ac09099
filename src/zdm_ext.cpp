// Module entry: what each room sets up, in order.
#include "backfill/backfill.hpp"
#include "jobs/launcher.hpp"
#include "jobs/settings.hpp"
#include "jobs/spawn.hpp"
#include "pg/error.hpp"
#include "pg/export.hpp"
#include "pg/postgres.hpp"

#pragma GCC visibility push(default)
extern "C" {
PG_MODULE_MAGIC;
}
#pragma GCC visibility pop

ZDM_EXPORT void _PG_init() {
    zdm::pg::entry([] {
        zdm::jobs::define_settings();
        zdm::jobs::register_spawn_callbacks();
        zdm::jobs::register_launcher();
        zdm::backfill::set_up();
    });
}
