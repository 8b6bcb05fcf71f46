#!/usr/bin/env bash
# Makes .venv-dataflow, the Python that scale/'s pipelines run in, from requirements-dataflow.txt; keeps one that fits.
#
#   scripts/scale_venv.sh [FOLDER]
#
# Apache Beam's packages fit none of the runbooks', so they have an environment of their own (docs/decisions/0023).
# PYTHON=/path/to/python chooses the interpreter. Needs 1 GB. Exit code 3: no Python, no room or no registry.
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
venv=${1:-$root/.venv-dataflow}
pins=$root/requirements-dataflow.txt
stamp=$venv/pins.stamp
python=${PYTHON:-python3}

fail() {
    printf '%s\n' "$*" >&2
    exit 3
}

"$python" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "$python is no Python 3.11 or newer with the module venv; set PYTHON=/path/to/python3.11."
exec 9<"$root"
flock 9
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wanted=$({ cat "$pins" && printf '%s\n' "$version"; } | sha256sum)
if [[ -e $stamp && $(<"$stamp") == "$wanted" ]]; then
    exit 0
fi
"$python" -m venv --clear "$venv" || fail "$venv cannot be made with $python."
# The pins are complete: nothing is left to resolve.
"$venv/bin/python" -I -m pip install --quiet --no-deps --no-input --disable-pip-version-check --requirement "$pins" ||
    fail "requirements-dataflow.txt could not be installed. Check the network or PIP_INDEX_URL, and run this again."
printf '%s\n' "$wanted" >"$stamp"
printf '%s is ready: Apache Beam %s\n' "$venv" "$("$venv/bin/python" -c 'import apache_beam; print(apache_beam.__version__)')"
