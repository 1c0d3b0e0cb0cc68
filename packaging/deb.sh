#!/bin/sh
# Makes the Debian package, in target/debian: packaging/deb.sh [OPTIONS OF cargo deb]
#
# It holds the static program, so it installs on every Debian and Ubuntu of this architecture. WEIR_PROGRAM names one that is
# built already. Needs cargo-deb (cargo install cargo-deb).
set -eu
cd "$(dirname "$0")/.."

parts=target/packaging
mkdir -p "$parts/completions"
if [ -n "${WEIR_PROGRAM:-}" ]; then
    install -m 0755 "$WEIR_PROGRAM" "$parts/weir"
else
    docker/static.sh "$parts"
fi
rm -rf "$parts/man"
"$parts/weir" man --out "$parts/man"
for shell in bash zsh fish; do
    "$parts/weir" completions "$shell" > "$parts/completions/weir.$shell"
done
exec cargo deb --no-build --no-strip "$@"
