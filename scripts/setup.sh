#!/usr/bin/env bash
# Makes a bare Debian or Ubuntu able to build and test Parlor. Installs only what is missing, so a second
# run changes nothing and takes a fraction of a second. It never fetches programs from the web by itself.
#
#   scripts/setup.sh          what the build and the tests call
#   scripts/setup.sh check    and what `make check` needs besides: device headers, cargo-deny
#
# Ends with 1, after naming exactly what to install, where it cannot install (no apt-get, neither root nor sudo).
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

purpose=${1:-build}
case $purpose in build|check) ;; *) fail "unknown purpose '$purpose': say nothing, or 'check'" ;; esac

# bindgen loads this library; only the -dev package has it under this name, and brings the compiler's own headers.
has_libclang() { [[ -n ${LIBCLANG_PATH:-} ]] || compgen -G '/usr/lib/llvm-*/lib/libclang.so' >/dev/null; }

missing=()
need() { missing+=("$1"); }

{ has gcc && has g++; } || need g++ # links every program; compiles OpenH264
has make           || need make    # libopus' own build
has cmake          || need cmake   # libopus' own build
has nasm           || need nasm    # OpenH264's assembler, about 2.5 times faster
has pkg-config     || need pkg-config
has ffprobe        || need ffmpeg  # the tests read our recordings with a stranger's eyes
if [[ $purpose == check ]]; then
    pkg-config --exists alsa 2>/dev/null || need libasound2-dev # feature audio-devices
    has_libclang || need libclang-dev                            # feature camera
fi

if ((${#missing[@]})); then
    install="apt-get install --no-install-recommends ${missing[*]}"
    has apt-get || fail "missing: ${missing[*]} (Debian's names)" \
        "there is no apt-get here: install them with this system's package manager, then run this again."
    if [[ $(id -u) == 0 ]]; then as_root=(env)
    elif has sudo && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then as_root=(sudo env)
    else fail "missing: ${missing[*]}" "not root and no sudo: have somebody run  $install"
    fi
    printf 'setup: installing %s\n' "${missing[*]}"
    # Another apt may be at work (a fresh machine updates itself): wait for its lock instead of failing.
    apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    "${apt[@]}" update || printf 'setup: the package lists could not be refreshed; trying with those at hand\n' >&2
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null \
        || fail "could not install: ${missing[*]}" "see apt-get's words above; by hand:  $install"
fi

# Rust is not taken from apt: Debian's and Ubuntu's are too old for this workspace.
rust_min=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
{ has cargo && has rustc; } || fail "Rust is missing: install $rust_min or newer, see https://rustup.rs" \
    "(installed already? then its folder, often ~/.cargo/bin, is not in PATH)"
rust_found=$(rustc --version | cut -d' ' -f2)
[[ $(printf '%s\n' "$rust_min" "$rust_found" | sort -V | head -n1) == "$rust_min" ]] \
    || fail "Rust $rust_found is too old, $rust_min is needed:  rustup update stable"

if [[ $purpose == check ]]; then
    has cargo-deny || fail "cargo-deny is missing:  cargo install --locked cargo-deny   (compiles for a few minutes)"
fi
