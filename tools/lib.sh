# shellcheck shell=bash disable=SC2034,SC2154
# What the scripts in tools/ share. Sourced by bash, with `root` set to the
# source tree; prints what it does, and does nothing twice.

say() {
    printf '== %s\n' "$*"
}

jobs=${SACCADE_JOBS:-$(nproc)}

build_packages=(build-essential meson ninja-build pkg-config libuv1-dev node-llhttp
    libjpeg62-turbo-dev libpng-dev libdnnl-dev protobuf-c-compiler libprotobuf-c-dev libjansson-dev
    liblmdb-dev libhdf5-dev libcurl4-openssl-dev libarchive-dev libopenmpi-dev)
test_packages=(libcmocka-dev python3 curl xz-utils util-linux procps openmpi-bin
    iproute2)
fuzz_packages=(clang-14 libclang-rt-14-dev)

# Those of the named Debian packages that are not installed, one a line.
packages_missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
            printf '%s\n' "$package"
    done
}

# Installs what is missing of the named packages. Elsewhere than on Debian, and
# without the right to install, it says what is needed and fails.
packages_need() {
    local missing sudo=()
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        say "no apt-get here: please see that these are installed: $*"
        return 0
    fi
    mapfile -t missing < <(packages_missing "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            say "missing: ${missing[*]}. Install them as root: apt-get install ${missing[*]}"
            return 1
        fi
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -q </dev/null &&
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
            --no-install-recommends "${missing[@]}" </dev/null
}

# build_in FOLDER [meson options]: sets the build up, or again when its options
# have changed, and compiles it: all, or $build_target.
build_in() {
    local dir=$1 options=${*:2}
    shift
    if [ ! -f "$dir/build.ninja" ] || [ "$(cat "$dir/.options" 2>/dev/null)" != "$options" ]; then
        say "setting up $(basename "$dir") ($options)"
        rm -rf "$dir"
        meson setup "$dir" "$root" "$@" </dev/null || return 1
        printf '%s' "$options" >"$dir/.options"
    fi
    say "building in $(basename "$dir")"
    ninja -C "$dir" -j "$jobs" "${build_target:-all}" </dev/null
}
