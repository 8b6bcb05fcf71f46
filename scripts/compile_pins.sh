#!/usr/bin/env bash
# Compiles requirements.txt, tests/requirements.txt, the API's and Apache Beam's from pyproject.toml. Needs uv
# (pip install uv).
#
#   scripts/compile_pins.sh             keeps the pins that still fit
#   scripts/compile_pins.sh --upgrade   takes the newest of everything
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# jsonschema does without it (it checks IRIs, of which we have none), and importing it takes each kernel and each
# papermill a second: it compiles a grammar. Pins are installed with --no-deps, so what is left out is not installed.
left_out=(--no-emit-package rfc3987-syntax --no-emit-package lark)

compile() {
    uv pip compile --quiet --universal --python-version 3.11 --annotation-style line \
        --custom-compile-command scripts/compile_pins.sh \
        --no-emit-index-url --no-emit-find-links "${left_out[@]}" "$@"
    # What was left out stands above, with its reason; some versions of uv list it once more at the end.
    sed -i -e '/^# The following packages were excluded/,$d' -e '/^$/d' "$scratch"/*.txt
}

# uv takes the versions that it finds in its output file as the ones to keep; "-e ." is ours.
[[ ! -e requirements.txt ]] || grep -v '^-e ' requirements.txt >"$scratch/run.txt"
compile --extra gcp "$@" --output-file "$scratch/run.txt" pyproject.toml

[[ ! -e tests/requirements.txt ]] || cp tests/requirements.txt "$scratch/all.txt"
compile --extra gcp --extra dev --constraint "$scratch/run.txt" "$@" --output-file "$scratch/all.txt" pyproject.toml

# What the memory API's container has: a part of the first, in the same versions.
compile --no-annotate --group service --constraint "$scratch/run.txt" --output-file "$scratch/service.txt"
cp "$scratch/service.txt" orchestra_lib/service/requirements.txt

# Apache Beam's environment: its pins fit none of the others, so they are compiled alone.
[[ ! -e requirements-dataflow.txt ]] || cp requirements-dataflow.txt "$scratch/dataflow.txt"
compile --group dataflow "$@" --output-file "$scratch/dataflow.txt"
cp "$scratch/dataflow.txt" requirements-dataflow.txt

{
    cat "$scratch/run.txt"
    printf '%s\n' "-e ."
} >requirements.txt
# What the tests need on top: every pin of both that is not among the first.
awk 'NR == FNR { pinned[$1]; next } /^#/ || !($1 in pinned)' requirements.txt "$scratch/all.txt" >tests/requirements.txt
