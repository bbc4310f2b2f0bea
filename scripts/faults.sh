#!/usr/bin/env bash
# Plants faults, one at a time, in a copy of the project, and expects its test to turn red: a test that cannot
# fail proves nothing. Each fault is a patch in tests/faults/ whose first line says which test should notice:
#
#   # cargo test -p parlor-tests --test roster any_history
#
#   scripts/faults.sh [NAME…]     all of them, or those named
#
# Ends with 1 if a fault goes unnoticed, its patch no longer applies, or it does not compile.
set -euo pipefail
cd "$(dirname "$0")/.."

# In one place, and kept: cargo builds anew only what a fault or a commit has touched.
tree=$PWD/target/faults/tree
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/faults}
git worktree prune
[[ -e $tree/.git ]] || git worktree add --quiet --detach "$tree" HEAD
git -C "$tree" checkout --quiet --force --detach "$(git rev-parse HEAD)"
trap 'git -C "$tree" checkout --quiet -- .' EXIT

for name; do
    [[ -e tests/faults/$name.patch ]] || { echo "$name: there is no such fault in tests/faults"; exit 2; }
done

unnoticed=0
for patch in tests/faults/*.patch; do
    name=$(basename "$patch" .patch)
    (($# == 0)) || [[ " $* " == *" $name "* ]] || continue
    read -r _ command < "$patch"
    git -C "$tree" checkout --quiet -- .
    git -C "$tree" apply "$PWD/$patch" || { echo "$name: the patch does not apply; mend it"; unnoticed=1; continue; }
    locked=$(sed -E 's/^cargo [a-z]+/& --locked/' <<< "$command")
    if output=$(cd "$tree" && bash -c "$locked" 2>&1); then
        echo "$name: NOT NOTICED by $command"
        unnoticed=1
    elif grep -qE '^error(\[|: could not compile)' <<< "$output"; then
        echo "$name: does not compile; mend the patch"
        unnoticed=1
    else
        echo "$name: noticed by $command"
        grep -m1 -A1 -E 'panicked at|^RED' <<< "$output" | sed 's/^/    /' || true
        grep -E '^[0-9]+ seeds, ' <<< "$output" | sed 's/^/    /' || true
    fi
done
exit $unnoticed
