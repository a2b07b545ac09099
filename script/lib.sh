# shellcheck shell=bash
# What the scripts of this folder share: messages, packages, the build, throwaway servers. Sourced, not run.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# A throwaway server is all that these scripts talk to, whatever the caller's environment points at.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE PGOPTIONS PGDATA \
    PGAPPNAME PGCLIENTENCODING PGTZ PGSSLMODE
export LC_ALL=C.UTF-8

# --- messages ------------------------------------------------------------------------------------------------

if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' plain=''
fi

heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s\n' "$*"; }
good() { printf '%s%s%s\n' "$green" "$*" "$plain"; }
bad() { printf '%s%s%s\n' "$red" "$*" "$plain"; }
faint() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The comment at the head of a script is its help.
usage() { sed -n '2,/^[^#]/{/^#/!d;/^# shellcheck/d;s/^# \{0,1\}//;p}' "$0"; }

# Seconds with a millisecond's precision, as an integer of milliseconds.
now_ms() {
    local t=${EPOCHREALTIME/[.,]/}
    echo $((t / 1000))
}
seconds_since() { awk -v ms="$(($(now_ms) - $1))" 'BEGIN { printf "%.1f", ms / 1000 }'; }

# --- packages ------------------------------------------------------------------------------------------------

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo "$@"
    fi
}

# The server's major version to work with: the only one that can be built against, otherwise the release's own.
default_pg() {
    local -a found=()
    local path version=''
    for path in /usr/lib/postgresql/*/lib/pgxs/src/makefiles/pgxs.mk; do
        [[ -e $path ]] || continue
        path=${path#/usr/lib/postgresql/}
        found+=("${path%%/*}")
    done
    if ((${#found[@]} == 1)); then
        echo "${found[0]}"
        return
    fi
    command -v apt-cache > /dev/null || die 'this needs Debian or Ubuntu, or --pg with the version that is installed'
    version=$(release_pg)
    if [[ -z $version ]]; then
        # A system that has never fetched its package lists cannot say what it carries.
        as_root apt-get -qq update >&2 || true
        version=$(release_pg)
    fi
    [[ -n $version ]] || die 'cannot tell which PostgreSQL this release carries: say it with --pg N'
    echo "$version"
}
release_pg() { apt-cache depends postgresql 2> /dev/null | sed -n 's/^ *Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1; }

# The packages of the arguments that are not installed.
missing_packages() {
    local package
    local -A have=()
    while read -r _ _ state package; do
        [[ $state == installed ]] && have[$package]=1
    done < <(dpkg-query -W -f '${db:Status-Want} ${db:Status-Eflag} ${db:Status-Status} ${Package}\n' "$@" 2> /dev/null)
    for package in "$@"; do
        [[ -n ${have[$package]:-} ]] || echo "$package"
    done
}

# Installs what is missing of the arguments; says nothing and costs nothing when all is there.
install_packages() {
    local -a missing=() install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends
        -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold install)
    local log
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    command -v apt-get > /dev/null || die "please install: ${missing[*]}"
    note "installing: ${missing[*]}"
    if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
        # Our servers are throwaways: the package shall not make a cluster of its own and start it.
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf > /dev/null
    fi
    log=$(mktemp)
    # The lists may be older than the mirror, or an earlier run was cut short: made good only when it turns out so.
    if ! as_root "${install[@]}" "${missing[@]}" < /dev/null > "$log" 2>&1; then
        as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a --force-confold < /dev/null >> "$log" 2>&1 || true
        as_root apt-get -qq update < /dev/null >> "$log" 2>&1 || true
        if ! as_root "${install[@]}" "${missing[@]}" < /dev/null >> "$log" 2>&1; then
            tail -n 25 "$log" >&2
            rm -f "$log"
            die "could not install: ${missing[*]}"
        fi
    fi
    rm -f "$log"
}

# --- a work folder that is gone when the script ends ----------------------------------------------------------

work='' child=''
on_exit() { :; } # a script's own last words, said before the work folder goes

open_work() {
    # Not under the caller's TMPDIR: that may be private to a user that the server is not, or too long for a socket.
    work=$(mktemp -d /tmp/zdm.XXXXXX)
    mkdir "$work/logs" "$work/cluster" "$work/home"
    chmod 755 "$work"
    chmod 777 "$work/logs"
    if ((EUID == 0)); then
        getent passwd postgres > /dev/null || die 'there is no user postgres to run a server as'
        chown postgres: "$work/logs" "$work/cluster" "$work/home"
    fi
    trap close_work EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

close_work() {
    local status=$? pidfile
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    [[ -z $child ]] || kill "$child" 2> /dev/null
    on_exit
    # Whatever server was left behind in here, by a test that died too, is ended by its own pid file.
    while IFS= read -r pidfile; do
        as_server "$bin/pg_ctl" -D "$(dirname "$pidfile")" -m immediate -t 30 stop > /dev/null 2>&1
    done < <(find "$work" -name postmaster.pid 2> /dev/null)
    rm -rf "$work"
    exit "$status"
}

# A server refuses to run as root: it, and what drives it, run as the package's user, in a folder that user can enter.
as_server() { (server_exec "$@"); }

# The same in place of the (sub)shell it is called in, for a background process that is known by its own pid.
server_exec() {
    cd "$work"
    # The shell starts its background processes with SIGINT ignored; tests send it.
    set -- env --default-signal=INT,QUIT HOME="$work/home" "$@"
    ((EUID != 0)) || set -- setpriv --reuid=postgres --regid=postgres --init-groups "$@"
    exec "$@"
}

# Waits for a background process, which does not outlive the script, and returns its status.
await() {
    local status=0
    child=$1
    wait "$child" || status=$?
    child=''
    return "$status"
}

# --- the build -----------------------------------------------------------------------------------------------

# The sources, NUL-separated: what git tracks or would, otherwise whatever is not a product of a build.
list_sources() {
    if [[ -e $root/.git ]] && command -v git > /dev/null; then
        # The tree may belong to another user than the one who tests it.
        git -c safe.directory="$root" -C "$root" ls-files -z --cached --others --exclude-standard
    else
        (cd "$root" && find . \( -path ./build -o -path ./.git \) -prune -o -type f ! -name '*.o' ! -name '*.so' ! -name '*.d' \
            ! -name 'zdm_ext--*.sql' -printf '%P\0')
    fi | while IFS= read -r -d '' file; do
        [[ ! -e $root/$file ]] || printf '%s\0' "$file"
    done | sort -zu
}

# Brings the sources to a folder, times kept so that make sees what changed; what has gone here goes there.
stage_sources() {
    local to=$1
    mkdir -p "$to"
    list_sources > "$to/.sources.new"
    if [[ -e $to/.sources ]]; then
        comm -z -23 "$to/.sources" "$to/.sources.new" | (cd "$to" && xargs -0 -r rm -f --)
    fi
    tar -C "$root" --null --no-recursion --files-from="$to/.sources.new" -cf - | tar -C "$to" --no-same-owner -xf -
    mv "$to/.sources.new" "$to/.sources"
}

pg='' bin='' pg_config='' tree='' prefix=''
sanitize=${sanitize:-}
declare -a server_env=()

# Chooses the server: the argument, or the default one.
choose_pg() {
    pg=${1:-$(default_pg)}
    [[ $pg =~ ^[0-9]+$ ]] || die "--pg takes a major version, as in --pg 15, not '$pg'"
    pg_config=/usr/lib/postgresql/$pg/bin/pg_config
}

# Builds in build/pgN, a copy a server version: their objects do not mix. Output goes to the log, in argument 1.
build_extension() {
    local log=$1 stamp
    [[ -x $pg_config ]] || die "PostgreSQL $pg is not installed: script/bootstrap --pg $pg"
    tree=$root/build/pg$pg${sanitize:+-sanitize}
    mkdir -p "$tree" "$(dirname "$log")"
    exec {build_lock}> "$tree.lock"
    flock "$build_lock" # another script of this checkout may be building the same
    stage_sources "$tree"
    # make does not know what else an object depends on: the server's release, the compiler and its flags.
    stamp="$("$pg_config" --version) g++ $(g++ -dumpfullversion) $(cksum < "$tree/Makefile") $sanitize"
    if [[ $(cat "$tree/.stamp" 2> /dev/null) != "$stamp" ]]; then
        find "$tree" \( -name '*.o' -o -name '*.so' -o -name '*.d' \) -delete
        rm -rf "$tree/build"
        echo "$stamp" > "$tree/.stamp"
    fi
    local status=0
    { in_tree -j2 --keep-going all && install_extension; } > "$log" 2>&1 || status=1
    flock -u "$build_lock"
    exec {build_lock}>&-
    return $status
}
in_tree() { make -C "$tree" --no-print-directory PG_CONFIG="$pg_config" SANITIZE="$sanitize" "$@"; }

# Installs into a private copy of the server, 40 MB in the work folder: runs side by side do not meet, a sanitized library
# meets nobody's server, and the machine is afterwards what it was. PostgreSQL finds its files relative to its programs.
install_extension() {
    local share lib
    share=$("$pg_config" --sharedir)
    lib=$(dirname "$(dirname "$("$pg_config" --bindir)")") # /usr/lib/postgresql
    prefix=$work/server
    bin=$prefix$("$pg_config" --bindir)
    rm -rf "$prefix" &&
        mkdir -p "$prefix$lib" "$prefix$(dirname "$share")" "$prefix/usr/lib" &&
        cp -a "$lib/$pg" "$prefix$lib/" &&
        cp -as "$share" "$prefix$share" &&
        ln -s /usr/include "$prefix/usr/include" &&
        ln -s "$("$pg_config" --libdir)" "$prefix/usr/lib/$(basename "$("$pg_config" --libdir)")" &&
        in_tree PG_CONFIG="$bin/pg_config" install
}

# --- throwaway servers ---------------------------------------------------------------------------------------

# cluster_start NAME [setting=value ...]: a fresh server, which the environment then points to, gone with the work folder.
cluster_start() {
    local name=$1 dir=$work/cluster/$1
    shift
    if [[ ! -d $work/cluster/.template ]]; then
        as_server "$bin/initdb" -D "$work/cluster/.template" -U postgres --auth=trust --no-sync \
            --locale=C.UTF-8 --encoding=UTF8 > "$work/logs/initdb.log" 2>&1 || {
            tail -n 20 "$work/logs/initdb.log" >&2
            return 1
        }
    fi
    as_server mkdir "$dir"
    as_server cp -a "$work/cluster/.template" "$dir/data"
    {
        # Unix socket only: nobody else on the machine or beyond it can reach the server, and no port is taken.
        echo "listen_addresses = ''"
        echo "unix_socket_directories = '$dir'"
        echo 'fsync = off'
        echo 'max_worker_processes = 16'
        echo 'max_prepared_transactions = 4'
        echo 'max_connections = 100'
        echo "log_line_prefix = '%m [%p] %q%a '"
        echo "timezone = 'UTC'"
        local setting
        for setting in "$@"; do
            echo "${setting%%=*} = '${setting#*=}'"
        done
    } | as_server tee -a "$dir/data/postgresql.conf" > /dev/null
    export PGHOST=$dir PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
    server_log=$work/logs/$name.server.log
    as_server env "${server_env[@]}" "$bin/pg_ctl" -D "$dir/data" -l "$server_log" -w -t 60 start > "$work/logs/pg_ctl.log" 2>&1 || {
        tail -n 20 "$server_log" >&2
        return 1
    }
}

cluster_stop() {
    as_server "$bin/pg_ctl" -D "$PGHOST/data" -m fast -w -t 60 stop > /dev/null
    rm -rf "$PGHOST/data"
}

# One value, or rows, from the throwaway server.
sql() { "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -c "$1"; }

# wait_until SECONDS WHAT SQL: until the query says t.
wait_until() {
    local deadline=$(($(now_ms) + $1 * 1000))
    until [[ $(sql "$3" 2> /dev/null) == t ]]; do
        (($(now_ms) < deadline)) || return 1
        sleep 0.1
    done
}
