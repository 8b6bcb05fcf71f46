#!/usr/bin/env bash
# Installs extensions of the editor from open-vsx.org for every user: publisher.name, or publisher.name@version.
# Those in /opt/code-oss/extensions are built in: the home disk does not cover them.
set -o errexit -o nounset -o pipefail

readonly registry=https://open-vsx.org/api
readonly installed=/opt/code-oss/extensions
scratch=$(mktemp --directory)
trap 'rm -rf "$scratch"' EXIT

fetch() { curl --fail --silent --show-error --location --retry 3 "$@"; }

for extension in "$@"; do
    name=${extension%%@*} version=latest
    [[ $extension != *@* ]] || version=${extension#*@}
    # One for this platform where there is one, else the one for all.
    described=$(fetch "$registry/${name%%.*}/${name#*.}/linux-x64/$version" ||
        fetch "$registry/${name%%.*}/${name#*.}/$version")
    fetch "$(jq --raw-output --exit-status .files.download <<<"$described")" --output "$scratch/extension.vsix"
    unzip -q "$scratch/extension.vsix" 'extension/*' -d "$scratch"
    rm -rf "${installed:?}/${name,,}"
    mv "$scratch/extension" "$installed/${name,,}"
    echo "$name $(jq --raw-output .version <<<"$described")"
done
