#!/usr/bin/env bash
# Makes docs/sample-run/ anew: one real rehearsal with its ledger, records, executed notebooks and pages, and a picture
# of the index. About ten minutes; the tree has to be as committed, because the records say which commit ran.
#
#   scripts/sample_run.sh
#
# plotly.min.js (4.8 MB) is left out, so the figures of this copy are still ones; `runs --html DIR` has it.
# Exit codes: those of the rehearsal; 2 for a tree with changes; 1 when the sample is larger than 5 MB.
set -euo pipefail

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/venv.sh"
prepare_venv requirements.txt
cd "$project_root"

readonly most_bytes=5000000
sample=docs/sample-run

if [[ -n $(git status --porcelain --untracked-files=no) ]]; then
    say "The tree has changes: commit them first, or the sample is of code that nobody can look at."
    exit 2
fi

# In a clone, so that what is there now stays until the new one is whole, and does not count as a change.
scratch=$(mktemp -d /tmp/orchestra-sample-XXXXXX)
chmod 755 "$scratch" # the database's own user has to enter it
export ORCHESTRA_HOME=$scratch/clone ORCHESTRA_STATE_DIR=$scratch/state ORCHESTRA_RUNS_DIR=$scratch/clone/$sample/runs
orchestra() { "$venv/bin/python" -P -m orchestra_lib "$@"; }
finish() {
    orchestra stream stop >/dev/null 2>&1 || true
    orchestra local down >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap finish EXIT

git clone --quiet --depth 1 "file://$project_root" "$ORCHESTRA_HOME"
rm -rf "${ORCHESTRA_HOME:?}/$sample"
mkdir -p "$ORCHESTRA_RUNS_DIR"

orchestra migrate "$@"
orchestra audit verify
orchestra runs --html "$ORCHESTRA_HOME/$sample"
rm "$ORCHESTRA_HOME/$sample/plotly.min.js" "$ORCHESTRA_RUNS_DIR/ledger.lock"

size_bytes=$(find "$ORCHESTRA_HOME/$sample" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
say "$sample: $size_bytes bytes"
if [[ $size_bytes -gt $most_bytes ]]; then
    say "That is more than $most_bytes: nothing was replaced."
    exit 1
fi

rm -rf "${project_root:?}/$sample"
mkdir -p "$project_root/docs"
cp -r "$ORCHESTRA_HOME/$sample" "$project_root/$sample"

if [[ -x /usr/bin/chromium ]]; then
    profile=$scratch/chromium
    /usr/bin/chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --disable-quic --user-data-dir="$profile" --hide-scrollbars \
        --window-size=1280,1150 --screenshot="$project_root/docs/sample-run.png" "file://$project_root/$sample/index.html" \
        >/dev/null 2>&1
    say "docs/sample-run.png: its index"
else
    say "docs/sample-run.png stays as it is: there is no /usr/bin/chromium."
fi
