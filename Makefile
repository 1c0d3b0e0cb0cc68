# The habits, one command each. `make check` before every commit; `.ci/run` is the same from a fresh clone, with the long tests.

BENCH ?=
TARGET ?= server_dialogue
SECONDS ?= 300

.PHONY: check format lint test long bench compare fuzz run image deb

check: format lint test

format:
	cargo fmt --check

lint:
	cargo clippy --locked --all-targets -- -D warnings

test:
	cargo test --locked

# With the tests that take minutes, and Postfix and Exim where they are installed (as root).
long:
	WEIR_TEST=long cargo test --locked

# All benchmarks, or one: make bench BENCH=dialogue
bench:
	cargo bench --locked $(if $(BENCH),--bench $(BENCH),--benches)

# weir, Postfix and Exim side by side, as root; benches/README.md tells what it takes. make compare OPTIONS="--recipients 50"
OPTIONS ?=
compare:
	cargo build --locked --release
	cargo bench --locked --bench compare -- $(OPTIONS)

# One target for a while; fuzz/README.md tells what it takes.
fuzz:
	cargo +nightly fuzz run -s none $(TARGET) -- -max_total_time=$(SECONDS) -max_len=1500 -timeout=20

run:
	cargo run --release -- run

image:
	docker build -f docker/Dockerfile -t weir .

# The Debian package, in target/debian; takes cargo-deb.
deb:
	packaging/deb.sh
