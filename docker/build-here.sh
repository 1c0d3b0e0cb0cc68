#!/bin/bash
# Builds the image where no base image can be pulled: with Debian's buildah, as root, and with the Rust and the C compiler of this
# host in the place of the official Rust image. Everything else is as the Dockerfile says. .ci/run calls it; the tests of the
# container and of the Debian package take what it leaves:
#
#     target/image/storage    the image, localhost/weir (podman --root target/image/storage …)
#     target/image/weir       the static program that is in it
#
# Needs: buildah, podman, cargo, cc, objcopy.
set -euo pipefail

# Read as a whole before it begins: it takes minutes, and a shell reads on while it runs.
{
cd "$(dirname "$0")/.."

here="$PWD/target/image"
store=(--storage-driver vfs --root "$here/storage" --runroot "$here/run")
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
rustup_home="${RUSTUP_HOME:-$HOME/.rustup}"

# What a build that was cut off left.
buildah "${store[@]}" rm --all > /dev/null 2>&1 || true

# The dependencies are fetched out here; the build itself needs no network.
cargo fetch --locked

# A root of nothing but links; what they lead to is mounted for the build.
root="$here/root"
mkdir -p "$here/build" "$root"/{dev,etc,proc,root,run,src,sys,tmp,usr,var}
for folder in bin lib lib64 sbin; do
    [ ! -L "/$folder" ] || ln -sfn "usr/$folder" "$root/$folder"
done
tar -C "$root" -c . | podman "${store[@]}" import \
    --change "ENV PATH=$cargo_home/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --change "ENV CARGO_HOME=$cargo_home" --change "ENV RUSTUP_HOME=$rustup_home" --change "ENV CARGO_NET_OFFLINE=true" \
    - weir-base

mounts=(--volume /usr:/usr:ro --volume /etc/alternatives:/etc/alternatives:ro --volume "$cargo_home:$cargo_home")
[ ! -d "$rustup_home" ] || mounts+=(--volume "$rustup_home:$rustup_home:ro")
# What was built before is not built again.
mounts+=(--volume "$here/build:/src/target")

build() {
    buildah "${store[@]}" bud --format docker --isolation chroot --build-arg BASE=localhost/weir-base "${mounts[@]}" -f docker/Dockerfile "$@" .
}
build -t localhost/weir

# The program and its line tables, out of the image and its neighbour.
out() {
    local container mounted
    container="$(buildah "${store[@]}" from "$1")"
    mounted="$(buildah "${store[@]}" mount "$container")"
    cp "$mounted/$2" "$here/$2"
    buildah "${store[@]}" rm "$container" > /dev/null
}
out localhost/weir weir
podman "${store[@]}" images --filter dangling=true -q | xargs -r podman "${store[@]}" rmi -f > /dev/null
ls -l "$here/weir"
exit
}
