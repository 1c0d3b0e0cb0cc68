#!/bin/bash
# How long it takes a stranger from nothing to the first relayed message: a fresh clone, the build, the relay beside a simulated
# receiver on loopback, one message through both. Leaves nothing behind.
#
#     benches/first-message.sh                   clones this repository (what is committed) and builds it
#     benches/first-message.sh --program FILE    with a program that is built already: the time without the build
set -euo pipefail

source="$(cd "$(dirname "$0")/.." && pwd)"
program=
if [ "${1:-}" = --program ]; then
    program="$(realpath "$2")"
fi

folder="$(mktemp -d)"
started=()
clean() {
    for pid in "${started[@]}"; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    [ "${ok:-}" ] || cat "$folder"/*.log >&2
    rm -rf "$folder"
}
trap clean EXIT

now() { date +%s%N; }
# Seconds between two moments, with a tenth.
between() { echo "$((($2 - $1) / 100000000))" | sed -E 's/(.)$/.\1/; s/^\./0./'; }

began=$(now)
if [ -z "$program" ]; then
    git clone --quiet "$source" "$folder/weir"
fi
cloned=$(now)
if [ -z "$program" ]; then
    (cd "$folder/weir" && CARGO_TARGET_DIR="$folder/target" cargo build --release --locked --quiet)
    program="$folder/target/release/weir"
fi
built=$(now)

# Ports of a run of its own, so that it works beside a relay that runs already. On a clash it says so and ends.
port=$((20000 + RANDOM % 10000))
receiver="127.0.0.1:$port"
export WEIR_DATA_DIR="$folder/data" WEIR_HOSTNAME=relay.example.com WEIR_LISTENER__0__ADDRESS="127.0.0.1:$((port + 1))"
export WEIR_ROUTE__0__DOMAIN="*" WEIR_ROUTE__0__TO="$receiver"
cd "$folder"

# Waits until a command succeeds, for a minute at most.
until_it() {
    local tries=0
    until "$@" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 1200 ] || exit 1
        sleep 0.05
    done
}
"$program" simulate --profile gentle --noise 0 --listen "$receiver" > receiver.log 2>&1 &
started+=($!)
"$program" run > relay.log 2>&1 &
started+=($!)
until_it "$program" health --ready
echo "Hello from a fresh clone." | "$program" send --from app@example.com --to someone@outlook.com --subject Hello
sent=$(now)
ok=yes

if [ "$cloned" != "$built" ] && [ -d "$folder/weir" ]; then
    echo "clone $(between "$began" "$cloned") s, build $(between "$cloned" "$built") s, start and first message $(between "$built" "$sent") s"
    echo "from a fresh clone to the first relayed message: $(between "$began" "$sent") s"
fi
echo "without the build: $(between "$built" "$sent") s"
