#!/usr/bin/env bash
# The tests of scale/ that need Apache Beam: pipelines in worker processes, workers that are killed, options of Dataflow.
#
#   scripts/scale_tests.sh           in .venv-dataflow, which it makes if need be; about a minute and a half
#   scripts/scale_tests.sh --large   the claims about 300,000 rows as well: about five minutes, 6 GB of disk
#
# run_tests.sh leaves them out: there is no time in it for a second environment. Other arguments go to pytest.
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cd "$root"
large=
if [[ ${1:-} == --large ]]; then
    large=1
    shift
fi
if [[ -z ${ORCHESTRA_DATAFLOW_PYTHON:-} ]]; then
    scripts/scale_venv.sh
fi
export ORCHESTRA_SCALE_TESTS=1
.venv/bin/python -m pytest tests/scale "$@"
[[ -z $large ]] || .venv/bin/python tests/scale/large.py
