# shellcheck shell=bash
# bench: one backfill, three ways. Sourced by script/bench; what it uses beyond this file is in script/lib.sh.

bench_settings=(fsync=on shared_buffers=1GB max_wal_size=16GB checkpoint_timeout=1h wal_compression=off)

# What is set, as SET list and as the rows that still need it.
bench_set="code = lpad(a::text, 6, '0') || '-' || b"
bench_needs="code IS DISTINCT FROM (lpad(a::text, 6, '0') || '-' || b)"

bench_row_bytes=0

# Lines of: rows method milliseconds growth(bytes) wal(bytes)
bench_results=''

# About 130 bytes a row with its header, a primary key and a column that is to be filled.
fresh_table() {
    sql "SET client_min_messages = warning; DROP TABLE IF EXISTS bench"
    sql "CREATE TABLE bench (id bigint PRIMARY KEY, a integer NOT NULL, b integer NOT NULL, at timestamptz NOT NULL,
                             note text NOT NULL, code text)"
    sql "INSERT INTO bench SELECT i, i % 100000, i % 97, '2024-01-01'::timestamptz + i * interval '1 s', repeat(md5(i::text), 2), NULL
         FROM generate_series(1, $1) i"
    sql 'VACUUM (ANALYZE) bench'
    bench_row_bytes=$(($(sql "SELECT pg_relation_size('bench')") / $1))
    sql 'CHECKPOINT'
}

# The loop that migration guides recommend: by key, a transaction a piece.
create_loop() {
    sql "CREATE PROCEDURE bench_loop(piece integer) LANGUAGE plpgsql AS \$\$
    DECLARE
        last bigint := 0;
        upto bigint;
    BEGIN
        LOOP
            SELECT max(id) INTO upto FROM (SELECT id FROM bench WHERE id > last ORDER BY id LIMIT piece) p;
            EXIT WHEN upto IS NULL;
            UPDATE bench SET $bench_set WHERE id > last AND id <= upto AND $bench_needs;
            COMMIT;
            last := upto;
        END LOOP;
    END \$\$"
}

# measure METHOD ROWS: time to the end as a client sees it, and what it cost.
measure() {
    local method=$1 rows=$2 size_before wal_before started ms growth wal left job
    fresh_table "$rows"
    size_before=$(sql "SELECT pg_relation_size('bench')")
    wal_before=$(sql 'SELECT pg_current_wal_insert_lsn()')
    started=$(now_ms)
    case $method in
        update) sql "UPDATE bench SET $bench_set WHERE $bench_needs" ;;
        loop) sql 'CALL bench_loop(10000)' ;;
        job)
            job=$(sql "SELECT zdm.start_backfill('bench', \$\$$bench_set\$\$)")
            sql "CALL zdm.wait($job)" > /dev/null 2>&1 || die "the job failed: $(sql "SELECT last_error FROM zdm.jobs WHERE job_id = $job")"
            ;;
    esac
    ms=$(($(now_ms) - started))
    growth=$(sql "SELECT pg_relation_size('bench') - $size_before")
    wal=$(sql "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$wal_before')::bigint")
    left=$(sql "SELECT count(*) FROM bench WHERE $bench_needs")
    [[ $left == 0 ]] || die "$method left $left rows as they were"
    bench_results+="$rows $method $ms $growth $wal"$'\n'
    printf '%s rows, %s: %d ms\n' "$rows" "$method" "$ms" >&2
}

# The Markdown table: a line a size and method, the ratios to the plain UPDATE's median of the same size.
report() {
    awk '
        function median(list, n,   values, i, j, t) {
            split(list, values, " ")
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && values[j] + 0 < values[j - 1] + 0; j--) { t = values[j]; values[j] = values[j - 1]; values[j - 1] = t }
            least = values[1]
            return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
        }
        NF == 5 {
            key = $1 " " $2
            if (!(key in n)) keys[++count] = key
            n[key]++
            times[key] = times[key] " " $3; growths[key] = growths[key] " " $4; wals[key] = wals[key] " " $5
        }
        END {
            name["update"] = "plain UPDATE"; name["loop"] = "loop, 10,000 rows a commit"; name["job"] = "zdm.start_backfill"
            print "| rows | how | time, least | time, median | rows/s | table growth | WAL | time | growth | WAL |"
            print "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"
            for (i = 1; i <= count; i++) {
                split(keys[i], part, " ")
                base = part[1] " update"
                time0 = median(times[base], n[base]); growth0 = median(growths[base], n[base]); wal0 = median(wals[base], n[base])
                wal = median(wals[keys[i]], n[keys[i]]); growth = median(growths[keys[i]], n[keys[i]])
                time = median(times[keys[i]], n[keys[i]])
                printf "| %d | %s | %.2f s | %.2f s | %d | %d MB | %d MB | %.2f x | %.2f x | %.2f x |\n", part[1], name[part[2]],
                    least / 1000, time / 1000, part[1] * 1000 / time, growth / 1048576, wal / 1048576,
                    time / time0, growth / growth0, wal / wal0
            }
        }' <<< "$bench_results"
}

describe_machine() {
    # shellcheck disable=SC2154 # script/lib.sh sets it
    printf '%s, %d cores, %d GB memory; %s; %s; g++ %s.\n' \
        "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
        "$(awk '/^MemTotal/ { print int($2 / 1048576 + 0.5) }' /proc/meminfo)" "$("$pg_config" --version)" \
        "$(printf '%s ' "${bench_settings[@]}" | sed 's/ $//')" "$(g++ -dumpfullversion)"
    printf '%d bytes a row before, the page header included. Ratios are to the plain UPDATE of the same run.\n' "$bench_row_bytes"
}
