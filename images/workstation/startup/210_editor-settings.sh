#!/usr/bin/env bash
# The editor's settings of a new home. What a developer has chosen is left alone.
set -o errexit -o nounset -o pipefail

runuser user --login --command '
    settings=$HOME/.codeoss-cloudworkstations/data/Machine/settings.json
    if [ ! -e "$settings" ]; then
        mkdir -p "$(dirname "$settings")"
        printf "%s\n" "{\"git.autofetch\": true, \"telemetry.telemetryLevel\": \"off\"}" > "$settings"
    fi
'
