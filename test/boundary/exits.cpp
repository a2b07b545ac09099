// A process that ends in the middle of C++ frames.
#include "boundary.hpp"

#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "pg/export.hpp"
#include "pg/latch.hpp"
#include "pg/lock.hpp"
#include "pg/postgres.hpp"

namespace pg = zdm::pg;
using boundary::Counted;

namespace {

// A file that stands for what must be released whatever happens: the destructor removes it when an error unwinds,
// a before_shmem_exit callback when FATAL does not. The callback leaves a second file, to tell who did it.
class ExitFile {
  public:
    explicit ExitFile(std::string path) : path_(std::move(path)) {
        std::ofstream(path_) << "held\n";
        pg::guard([&] { before_shmem_exit(at_exit, PointerGetDatum(this)); });
    }
    ~ExitFile() {
        cancel_before_shmem_exit(at_exit, PointerGetDatum(this));
        unlink(path_.c_str());
    }
    ExitFile(const ExitFile&) = delete;
    ExitFile& operator=(const ExitFile&) = delete;

  private:
    static void at_exit(int, Datum self) {
        pg::callback([&] {
            auto* file = static_cast<ExitFile*>(static_cast<void*>(DatumGetPointer(self)));
            rename(file->path_.c_str(), (file->path_ + ".exit").c_str());
        });
    }
    std::string path_;
};

void sleep_in_frames(std::uint64_t id, const std::string& path, int depth) {
    Counted counted;
    if (depth > 1) {
        sleep_in_frames(id, path, depth - 1);
        return;
    }
    auto const lock = pg::SessionLock::try_take(pg::LockSpace::job, id);
    if (!lock) {
        throw pg::Error(ERRCODE_LOCK_NOT_AVAILABLE, "somebody else holds the lock");
    }
    ExitFile const file(path);
    for (;;) {
        pg::wait_latch(60000);
    }
}

}  // namespace

// linger(id, path): holds a lock and a file, sleeps until it is interrupted.
ZDM_FUNCTION(boundary_linger) {
    return pg::entry([&] {
        sleep_in_frames(static_cast<std::uint64_t>(PG_GETARG_INT64(0)), boundary::argument(fcinfo, 1), 3);
        return Datum(0);
    });
}

// remove(path): a file of the data directory. True when it was there.
ZDM_FUNCTION(boundary_remove) {
    return pg::entry([&] { return BoolGetDatum(unlink(boundary::argument(fcinfo, 0).c_str()) == 0); });
}
