# The habits, one command each. `make check` before every commit; `.ci/run` is the same from a fresh clone, with the long tests.

BENCH ?=

.PHONY: check format lint test long bench run image

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

run:
	cargo run --release -- run

image:
	docker build -f docker/Dockerfile -t weir .
