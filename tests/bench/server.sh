# What the benches share, to be sourced: a server with a config and a data directory of its own, which does not outlive the script.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
wharf=$root/target/debug/wharf
data=$root/target/bench-data
log=$root/target/bench-server.log
result=$root/target/bench-result.json
server=
# How long `send` sends before it counts.
warm_up=500ms
# What else is to end with the script.
children=
# Where a line of a table misses its aim, that is said; it is no failure.
missed="  missed"

stop() {
    local status=$?
    trap - EXIT
    stop_children
    stop_server
    rm -rf "$data" "$result"
    # Above 128 someone stopped it. The server and the load hear of that at the same time, so that the load may tell of
    # messages which the server refused because it was stopping.
    if ((status > 128)); then
        echo 'stopped before the end' >&2
    elif ((status != 0)); then
        printf 'the bench failed; the last lines of the server'\''s log (%s):\n' "$log" >&2
        tail -n 20 "$log" | cut -c 1-500 >&2 || true
    fi
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

stop_children() {
    local child
    for child in $children; do
        kill -TERM "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    done
    children=
}

stop_server() {
    [[ -n $server ]] || return 0
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || true
    server=
}

# Starts a server with this config. Its addresses are in `url` and `admin` then.
start_server() {
    local word what address
    exec 3< <(exec "$wharf" run --config "$1" 2>"$log")
    server=$!
    url=
    admin=
    while [[ -z $url || -z $admin ]] && read -r -t 60 -u 3 word what address; do
        case "$word $what" in
            'listening agents') url=$address ;;
            'listening admin') admin=$address ;;
        esac
    done
    if [[ -z $url || -z $admin ]]; then
        echo 'the server did not start' >&2
        exit 1
    fi
}

# Starts the example that answers each frame and does nothing else, with its arguments. Its address is in `url` then.
start_echo() {
    local word what address
    exec 3< <(exec "$root/target/debug/examples/echo" "$@" 2>"$log")
    server=$!
    url=
    read -r -t 60 -u 3 word what address && url=$address
}

# The sum of the server's series of that name and, if given, of that label, as in `metric wharf_messages_accepted_total type=fsync`.
# 0 if there is none.
metric() {
    local label=${2-}
    curl -sS --noproxy '*' "$admin/metrics" | awk -v name="$1" -v label="${label%%=*}=\"${label#*=}\"" '
        { at = index($0, "{"); series = at ? substr($0, 1, at - 1) : $1 }
        series == name && (label == "=\"\"" || index($0, label)) { sum += $NF }
        END { printf "%.6f\n", sum }'
}

# The seconds of processors that the server has used so far.
cpu_seconds() {
    awk -v hertz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) / hertz }' "/proc/$server/stat"
}

# Sends messages to the server, as these arguments of `wharf bench` say. In the background, because a shell that waits for a
# command in front hears no signal until it ends.
send() {
    local load
    "$wharf" bench --url "$url" "$@" --warm-up "$warm_up" --json >"$result" &
    load=$!
    children="$children $load"
    wait "$load"
    children=${children% "$load"}
}

# The number of that name in the result, which is one line of JSON.
number() {
    sed -E 's/.*"'"$1"'":([0-9.]+).*/\1/' "$result"
}

# What an interrupted run left behind would be recovered first, and counted.
rm -rf "$data"
