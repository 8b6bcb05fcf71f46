#!/usr/bin/env bash
# Rehearses the whole migration on this machine, or runs it against another environment:
#
#   ./run_migration.sh
#   ./run_migration.sh --environment production --until 03 --mode plan
#
# The arguments are those of: python -m orchestra_lib migrate --help
set -euo pipefail

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/venv.sh"
prepare_venv requirements.txt

# -P: an orchestra_lib in the caller's folder (another checkout, say) must not be taken for this one.
exec "$venv/bin/python" -P -m orchestra_lib migrate "$@"
