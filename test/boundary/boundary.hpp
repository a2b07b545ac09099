// What the checks share.
#pragma once

#include <cstdint>
#include <string>

#include "pg/error.hpp"
#include "pg/postgres.hpp"

namespace boundary {

// An object that owns memory and counts its own: after an error has passed, `live` must be what it was.
class Counted {
  public:
    Counted() : payload_(100, 'x') { ++live; }
    ~Counted() {
        --live;
        ++died;
    }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    static inline std::int64_t live = 0;
    static inline std::int64_t died = 0;

  private:
    std::string payload_;
};

// A text argument as a string.
std::string argument(FunctionCallInfo fcinfo, int n);
// A string as a text datum.
Datum result(const std::string& s);

// Appends who runs here to the file of task `current_task` in the data directory. Files, unlike rows, stay when the
// transaction aborts.
void witness(const std::string& what);
inline std::int64_t current_task = 0;

}  // namespace boundary
