#include "backfill/slices.hpp"

#include <algorithm>

#include "backfill/batch.hpp"
#include "pg/postgres.hpp"

namespace zdm::backfill {

using pg::query;
using pg::text;

namespace {

struct Extent {
    Oid file;
    std::int64_t blocks;
    double tuples;
    bool partition;
};

Extent extent_of(Oid leaf) {
    return pg::guard([&] {
        Extent extent{InvalidOid, 0, 0, false};
        Relation relation = try_relation_open(leaf, AccessShareLock);
        if (relation != nullptr) {
            extent.file = compat::relation_file(relation);
            extent.blocks = RelationGetNumberOfBlocks(relation);
            extent.tuples = relation->rd_rel->reltuples;
            extent.partition = relation->rd_rel->relispartition;
            relation_close(relation, NoLock);
        }
        return extent;
    });
}

}  // namespace

std::vector<Slice> prepare_slices(const jobs::Job& job, const std::vector<Oid>& leaves) {
    std::vector<Extent> extents;
    for (Oid leaf : leaves) {
        extents.push_back(extent_of(leaf));
    }
    pg::Bookkeeping as_extension;
    query("UPDATE zdm.job_slice SET epoch = $2::bigint WHERE job_id = $1::bigint", {text(job.id), text(job.epoch)});
    std::vector<Slice> slices;
    double tuples = 0;
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        auto const end = std::max<std::int64_t>(extents[i].blocks, 1) * positions_per_block;
        tuples += std::max(extents[i].tuples, 0.0);
        // A rewritten or truncated leaf (a new file) starts over: rows already changed no longer match. Otherwise the end of
        // the pass stays where it was when the leaf was first seen: behind it are our own new versions, and what the
        // application adds is found by the last look.
        auto const row = query(
            "INSERT INTO zdm.job_slice AS s (job_id, slice_no, relation, relation_file, end_position, epoch)"
            " SELECT $1::bigint, coalesce((SELECT slice_no FROM zdm.job_slice WHERE job_id = $1::bigint"
            "   AND relation = $2::oid), (SELECT coalesce(max(slice_no), 0) + 1 FROM zdm.job_slice"
            "   WHERE job_id = $1::bigint)), $2::oid, $3::oid, $4::bigint, $5::bigint"
            " ON CONFLICT (job_id, slice_no) DO UPDATE SET"
            "   next_position = CASE WHEN s.relation_file = excluded.relation_file THEN s.next_position ELSE 0 END,"
            "   end_position = CASE WHEN s.relation_file = excluded.relation_file THEN s.end_position"
            "                       ELSE excluded.end_position END,"
            "   relation_file = excluded.relation_file"
            " RETURNING slice_no, next_position, end_position, ctid",
            {text(job.id), text(leaves[i]), text(extents[i].file), text(end), text(job.epoch)});
        const auto& r = row.front();
        slices.push_back(Slice{.number = static_cast<int>(pg::as_int(r[0])),
                               .leaf = leaves[i],
                               .file = extents[i].file,
                               .partition = extents[i].partition && leaves[i] != job.relation,
                               .next = pg::as_int(r[1]),
                               .end = pg::as_int(r[2]),
                               .row = pg::as_string(r[3])});
    }
    // A leaf that was dropped or detached holds nothing back.
    query(
        "UPDATE zdm.job_slice SET next_position = end_position WHERE job_id = $1::bigint"
        " AND relation <> ALL ($2::oid[]) AND next_position < end_position",
        {text(job.id), jobs::array_literal(std::vector<std::int64_t>(leaves.begin(), leaves.end()))});
    query("UPDATE zdm.job_run SET rows_total = $2::bigint WHERE job_id = $1::bigint",
          {text(job.id), text(static_cast<std::int64_t>(tuples))});
    return slices;
}

std::string advance(const jobs::Job& job, const Slice& slice, const Progress& progress) {
    static constexpr std::string_view by_tid =
        "UPDATE zdm.job_slice SET next_position = coalesce($4::bigint, next_position), rows_done = rows_done + $5::bigint,"
        "  rows_skipped = rows_skipped + $6::bigint, wal_bytes = wal_bytes + $7::bigint, busy_ms = busy_ms + $8::float8,"
        "  batches = batches + 1, last_progress_at = clock_timestamp()"
        " WHERE ctid = $9::tid AND job_id = $1::bigint AND slice_no = $2::integer AND epoch = $3::bigint"
        " RETURNING ctid";
    static constexpr std::string_view by_key =
        "UPDATE zdm.job_slice SET next_position = coalesce($4::bigint, next_position), rows_done = rows_done + $5::bigint,"
        "  rows_skipped = rows_skipped + $6::bigint, wal_bytes = wal_bytes + $7::bigint, busy_ms = busy_ms + $8::float8,"
        "  batches = batches + 1, last_progress_at = clock_timestamp()"
        " WHERE job_id = $1::bigint AND slice_no = $2::integer AND epoch = $3::bigint RETURNING ctid";
    std::vector<pg::Text> values = {text(job.id),
                                    text(slice.number),
                                    text(job.epoch),
                                    progress.next ? text(*progress.next) : pg::Text{},
                                    text(progress.rows_done),
                                    text(progress.rows_skipped),
                                    text(progress.wal_bytes),
                                    text(progress.busy_ms)};
    values.push_back(slice.row);
    auto row = query(by_tid, values);
    if (row.empty()) {
        values.pop_back();
        row = query(by_key, values);
    }
    if (row.empty()) {
        throw jobs::Stopped{jobs::StopReason::lost};
    }
    return pg::as_string(row.front()[0]);
}

}  // namespace zdm::backfill
