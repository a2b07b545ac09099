// The slices of a backfill: one a leaf, with its cursor. A batch and its slice's row commit together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "jobs/context.hpp"

namespace zdm::backfill {

struct Slice {
    int number = 0;
    Oid leaf = InvalidOid;
    Oid file = InvalidOid;  // the relfilenode the positions are valid for
    bool partition = false;  // of the job's relation: detached, its rows are no longer the job's
    std::int64_t next = 0;
    std::int64_t end = 0;
    std::string row;  // tid of the slice's own row: under an old snapshot elsewhere its version chain grows long

    bool done() const { return next >= end; }
};

// What one batch adds to its slice.
struct Progress {
    std::optional<std::int64_t> next;  // the cursor, where the batch moves it
    std::int64_t rows_done = 0;
    std::int64_t rows_skipped = 0;
    std::int64_t wal_bytes = 0;
    double busy_ms = 0;
};

// Brings the slices in line with the leaves there are now: new leaves get a slice, a leaf with a new file starts over,
// all of them belong to this run (epoch). Inside the caller's transaction.
std::vector<Slice> prepare_slices(const jobs::Job& job, const std::vector<Oid>& leaves);

// Needs pg::Bookkeeping. Throws Stopped{lost} when the slice belongs to another run by now. Returns the row's new tid.
std::string advance(const jobs::Job& job, const Slice& slice, const Progress& progress);

}  // namespace zdm::backfill
