#!/bin/sh
# Builds weir as one static program, for the container image and the Debian package, from the folder it is called in:
#
#     docker/static.sh FOLDER            weir, and its line tables as weir.debug, into FOLDER
#     docker/static.sh --dependencies    everything but weir itself: a layer that stays while Cargo.lock does
#
# Static on the gnu target. The linker warns of getaddrinfo: weir never asks it for a name (hickory-resolver does that), only
# for addresses in digits, so nothing of the build host is missed. --target keeps the flag away from build scripts and
# procedural macros.
set -eu

target="$(rustc -vV | sed -n 's/^host: //p')"
# Small: what a message costs is its syncs and the network, so weir itself is compiled for size here, and what reads options and
# configuration, asks the DNS or is needed now and then (what carries messages is not; SQLite and the cryptography are C). SQLite leaves
# out the searches that weir has no use for, and the linker packs the relocations, which takes a glibc of 2.36 or later.
build() {
    # Together: what nobody calls is left out, and there is one copy of what many call.
    small='--config profile.release.lto="fat" --config profile.release.codegen-units=1'
    for name in weir axum axum-core clap clap_builder clap_complete clap_mangen matchit prometheus-client serde_urlencoded toml toml_parser \
        hickory-proto hickory-resolver lettre hyper hyper-util; do
        small="$small --config profile.release.package.$name.opt-level=\"s\""
    done
    # Word by word; there is no blank in any.
    # shellcheck disable=SC2086
    RUSTFLAGS="-C target-feature=+crt-static" \
        LIBSQLITE3_FLAGS="-USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE" \
        cargo rustc --release --locked --bin weir --target "$target" $small -- -C link-arg=-Wl,-z,pack-relative-relocs
}

if [ "$1" = --dependencies ]; then
    # Sources that hold nothing; the manifest also wants to see its benchmarks.
    mkdir -p src benches
    echo 'fn main() {}' > src/main.rs
    : > src/lib.rs
    for bench in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml); do
        echo 'fn main() {}' > "benches/$bench.rs"
    done
    build
    rm -r src benches
    exit
fi

build
mkdir -p "$1"
built="${CARGO_TARGET_DIR:-target}/$target/release/weir"
objcopy --only-keep-debug "$built" "$1/weir.debug"
objcopy --strip-all --add-gnu-debuglink="$1/weir.debug" "$built" "$1/weir"
chmod 0755 "$1/weir"
# An older C library leaves packed relocations as they are: better to see that here.
"$1/weir" --version
