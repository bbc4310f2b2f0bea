#!/usr/bin/env bash
# Plants faults, one at a time, in a copy of the project, and expects its test to turn red: a test that cannot
# fail proves nothing. Each fault is a patch in tests/faults/ whose first line says which test should notice:
#
#   # cargo test -p parlor-tests --test roster any_history
#
#   scripts/faults.sh [NAME…]     all of them, or those named
#
# Ends with 1 if a fault goes unnoticed or its patch no longer applies.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'git worktree remove --force "$copy/tree" >/dev/null 2>&1 || true; rm -rf "$copy"' EXIT
git worktree add --quiet --detach "$copy/tree" HEAD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/faults}

unnoticed=0
for patch in tests/faults/*.patch; do
    name=$(basename "$patch" .patch)
    (($# == 0)) || [[ " $* " == *" $name "* ]] || continue
    read -r _ command < "$patch"
    git -C "$copy/tree" checkout --quiet -- .
    git -C "$copy/tree" apply "$PWD/$patch" || { echo "$name: the patch does not apply; mend it"; unnoticed=1; continue; }
    if output=$(cd "$copy/tree" && bash -c "$command --locked" 2>&1); then
        echo "$name: NOT NOTICED by $command"
        unnoticed=1
    elif grep -q '^error\[' <<< "$output"; then
        echo "$name: does not compile; mend the patch"
        unnoticed=1
    else
        echo "$name: noticed by $command"
        grep -m1 'panicked at' <<< "$output" | sed 's/^/    /' || true
    fi
done
exit $unnoticed
