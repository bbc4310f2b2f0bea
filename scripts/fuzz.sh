#!/usr/bin/env bash
# Fuzzes the targets of tests/src/fuzz.rs with libFuzzer, each for a stated time.
#
#   scripts/fuzz.sh [SECONDS each, 60] [TARGET, all]
#   KEEP=1 scripts/fuzz.sh …     afterwards adds to the corpus what reached new code, as few inputs as do
#
# An input that breaks a target is written to tests/corpus/<target>/: from then on `make test` fails on it,
# until the decoder is mended. Other finds stay in target/fuzz-corpus/, where the next run goes on from them.
#
# This works on stable Rust: the instrumentation is made of flags that every rustc has, so neither nightly
# nor cargo-fuzz is needed. AddressSanitizer would need nightly; our decoders have no unsafe code to find.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
only=${2:-}
if [[ -n $only && ! -d tests/corpus/$only ]]; then
    echo "fuzz: there is no target '$only', only: $(cd tests/corpus && echo *)" >&2
    exit 1
fi

# --target keeps the flags away from build scripts and macros, which are not linked with libFuzzer.
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(-Cpasses=sancov-module -Ccodegen-units=1)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
RUSTFLAGS="${flags[*]}" cargo build --locked --profile fuzz --target "$host" --target-dir target/fuzz \
    -p parlor-tests --features fuzz --bin fuzz
fuzz=target/fuzz/$host/fuzz/fuzz

# The length is INPUT_MAX of tests/src/fuzz.rs, whose HEAP_MAX is the stricter limit on memory.
limits=(-max_len=65536 -timeout=5 -rss_limit_mb=1024)
broken=()
for corpus in tests/corpus/${only:-*}; do
    target=$(basename "$corpus")
    finds=target/fuzz-corpus/$target
    mkdir -p "$finds"
    printf '\nfuzz: %s for %s s\n' "$target" "$seconds"
    FUZZ_TARGET=$target "$fuzz" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$corpus/" "$finds" "$corpus" || broken+=("$target")
    if [[ -n ${KEEP:-} ]]; then
        FUZZ_TARGET=$target "$fuzz" "${limits[@]}" -set_cover_merge=1 "$corpus" "$finds"
    fi
done

if ((${#broken[@]})); then
    printf '\nfuzz: broken: %s. The inputs are in tests/corpus/<target>/; make test replays them.\n' "${broken[*]}" >&2
    exit 1
fi
