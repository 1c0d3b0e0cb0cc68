#!/bin/sh
# weir, as durable as it always is. WEIR_BENCH_PROGRAM names another build.
# A plug starts a relay in the foreground: FOLDER for what it keeps, SINK (HOST:PORT) that it sends everything to, PORT on 127.0.0.1 it listens on.
set -eu
folder=$1 sink=$2 port=$3
cat > "$folder/weir.toml" <<END
data_dir = "$folder/data"
hostname = "relay.bench.test"
[[listener]]
address = "127.0.0.1:$port"
[delivery]
networks = ["127.0.0.0/8"]
[[route]]
domain = "*"
to = "$sink"
[[provider]]
name = "default"
max_connections = 20
initial_connections = 20
messages_per_connection = 1000
END
exec "${WEIR_BENCH_PROGRAM:-target/release/weir}" run --config "$folder/weir.toml" 2> "$folder/log"
