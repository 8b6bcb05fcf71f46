#!/usr/bin/env bash
# Checks everything: lint, format, types, tests.
#
#   ./run_tests.sh               all of it
#   ./run_tests.sh fast          without the slow tests
#   ./run_tests.sh -k journal    other arguments go to pytest
#
# Fails when any of the four does. The last line is pytest's own.
set -euo pipefail

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/venv.sh"
prepare_venv requirements.txt tests/requirements.txt
cd "$project_root"

failed=
check() {
    printf '== %s\n' "$*"
    "$venv/bin/python" -m "$@" || failed+="${failed:+, }$*"
}

if [[ ${1:-} == fast ]]; then
    set -- -m "not slow" "${@:2}"
fi

check ruff check
check ruff format --check
check mypy
# Two workers, because most tests wait for servers and kernels; by file, because fixtures of a file are costly; in the
# order that tests/conftest.py gives, the longest first.
set -- -n 2 --dist loadfile --no-loadscope-reorder "$@"
printf '== pytest %s\n' "$*"
if [[ -z $failed ]]; then
    exec "$venv/bin/python" -m pytest "$@"
fi
# Said here, because nothing may come after pytest's closing line.
printf 'This run fails whatever the tests say: %s (see above).\n' "$failed"
"$venv/bin/python" -m pytest "$@"
exit 1
