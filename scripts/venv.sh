#!/usr/bin/env bash
# Makes .venv and keeps it in step with the pins; the only place that does.
#
#   scripts/venv.sh           what the runbooks need: requirements.txt
#   scripts/venv.sh --tests   and what the tests need: tests/requirements.txt
#
# run_migration.sh and run_tests.sh source this file and call prepare_venv.
# PYTHON=/path/to/python chooses the interpreter that a new .venv is made with.
# Exit codes: 3 no Python, no room or no registry; 130 Ctrl-C; 143 TERM.
set -euo pipefail

project_root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
venv=$project_root/.venv
log=$venv/install.log
# Stands while .venv is being changed: whoever finds it knows that the last run was killed.
unfinished=$venv/unfinished

# 1.3 GB installed, about as much again while the archives are fetched and unpacked.
readonly VENV_NEEDS_MB=${VENV_NEEDS_MB:-3000}
readonly ENVIRONMENT_FAILED=3

child=

# Brings .venv up to date with each of the pins files (relative to the project).
prepare_venv() {
    trap 'stop 129' HUP
    trap 'stop 130' INT
    trap 'stop 143' TERM
    lock
    ensure_venv
    local pins
    for pins in "$@"; do
        install_pins "$pins"
    done
    exec 9<&- # what runs next, and the servers that it leaves behind, must not hold the lock
    trap - HUP INT TERM
}

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$@"
    exit "$ENVIRONMENT_FAILED"
}

# Waits for a command in a way that a signal to this script interrupts at once, and never fails itself: sets $status.
run() {
    "$@" &
    child=$!
    status=0
    wait "$child" || status=$?
    child=
}

stop() {
    trap '' HUP INT TERM
    if [[ -n $child ]]; then
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    [[ ! -e $unfinished ]] || say "Stopped before .venv was ready; the next run makes it anew."
    exit "$1"
}

# The project folder itself is the lock: no file to leave behind, and it survives a new .venv.
lock() {
    exec 9<"$project_root"
    flock --nonblock 9 && return
    say "Another run is preparing .venv: waiting for it."
    run flock 9
}

ensure_venv() {
    local trouble=
    if [[ -e $unfinished ]]; then
        trouble="the last installation was cut short"
    elif [[ -e $venv/pyvenv.cfg ]]; then
        if [[ -e $venv/place && $(<"$venv/place") != "$project_root" ]]; then
            trouble="it was made for $(<"$venv/place")" # its commands name that folder
        elif version=$(venv_version); then
            return
        else
            trouble="its Python is gone, damaged or older than 3.11"
        fi
    fi
    [[ -z $trouble ]] || say "Making .venv anew: $trouble."
    make_venv
}

# Prints the version; fails when .venv cannot be used.
venv_version() {
    "$venv/bin/python" -I -c '
import sys, pip
print("%d.%d.%d" % sys.version_info[:3])
sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

make_venv() {
    find_python
    local error
    error=$({ mkdir -p "$venv" && touch "$unfinished"; } 2>&1) ||
        fail "Cannot write to $venv: ${error##*: }. Make the folder writable, or work in a copy of the project."
    # Emptied, not removed: .venv may be a link to a larger disk.
    find -H "$venv" -mindepth 1 ! -path "$unfinished" -delete
    check_room
    run logged "$python" -m venv "$venv"
    [[ $status -eq 0 ]] || fail_with_log "$python could not make .venv (exit code $status)." \
        "Choose another Python with PYTHON=/path/to/python3 and run this again."
    version=$(venv_version) || fail "$python made a .venv that does not work. Choose another one with PYTHON=/path/to/python3."
    printf '%s\n' "$project_root" >"$venv/place"
    rm "$unfinished"
}

# Sets $python. Each candidate is run, because a name on PATH (a pyenv shim, say) need not work.
find_python() {
    local candidates=(python3.13 python3.12 python3.11 python3) candidate lacks_venv=
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        python=$("$candidate" -c '
import sys
print(sys.executable)
sys.exit(sys.version_info < (3, 11))' 2>/dev/null) || continue
        "$python" -c 'import ensurepip, venv' 2>/dev/null && return
        lacks_venv=${lacks_venv:-$python}
    done
    [[ -z $lacks_venv ]] ||
        fail "$lacks_venv has no venv module. Install it (Debian, Ubuntu: apt install python3-venv) and run this again."
    [[ -z ${PYTHON:-} ]] || fail "PYTHON=$PYTHON is not a Python 3.11 or newer that runs. Correct PYTHON or unset it."
    fail "No Python 3.11 or newer found (tried: ${candidates[*]})." \
        "Install one (Debian, Ubuntu: apt install python3 python3-venv) or set PYTHON=/path/to/python3.11."
}

check_room() {
    local free_mb
    free_mb=$(df --block-size=1M --output=avail "$venv" | tail -n 1)
    [[ $free_mb -lt $VENV_NEEDS_MB ]] || return 0
    rm "$unfinished"
    fail "Not enough disk space for .venv: $((free_mb)) MB free in $project_root, $VENV_NEEDS_MB MB needed." \
        "Make room, or link .venv to a folder on a larger disk."
}

install_pins() {
    local pins=$1 stamp=$venv/${1//\//-}.stamp wanted
    wanted=$(digest "$pins")
    [[ ! -e $stamp || $(<"$stamp") != "$wanted" ]] || return 0

    rm -f "$stamp"
    touch "$unfinished" || fail "Cannot write to $venv. Make the folder writable, or work in a copy of the project."
    say "Installing $(grep -c == "$project_root/$pins") packages from $pins (a minute or two the first time); log: $log"
    # The pins are complete, so nothing is left to resolve. Temporary files go where the room was checked,
    # and where the next run clears them if this one is killed. -I: no PYTHONPATH, no modules of the caller's folder.
    mkdir -p "$venv/tmp"
    TMPDIR=$venv/tmp run logged "$venv/bin/python" -I -m pip install --no-deps --requirement "$pins" \
        --no-input --disable-pip-version-check --progress-bar off
    [[ $status -eq 0 ]] || install_failed "$pins"
    rm -rf "$venv/tmp"
    rm "$unfinished"
    printf '%s\n' "$wanted" >"$stamp"
}

install_failed() {
    if grep -q "No space left on device" "$log"; then # what is there may be half written: leave the mark
        fail_with_log "The disk is full: $1 is not installed." "Make room and run this again."
    fi
    # pip fetches everything before it changes anything: what .venv held is still good, unless pip was killed.
    [[ $status -gt 128 ]] || rm -rf "$unfinished" "$venv/tmp"
    fail_with_log "pip could not install $1 (exit code $status)." \
        "Check the network, or set PIP_INDEX_URL to a registry that you can reach, and run this again."
}

# The pins, what they were compiled from (its metadata is installed too), and the Python that they are installed for.
digest() {
    { cat "$project_root/$1" "$project_root/pyproject.toml" && printf '%s\n' "$version"; } | sha256sum
}

# Runs a command in the project folder, because "-e ." in the pins is relative to it.
logged() {
    cd "$project_root"
    exec "$@" >"$log" 2>&1
}

fail_with_log() {
    say "$1 The last lines of $log:"
    tail -n 12 "$log" | sed 's/^/    /' >&2
    fail "$2"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    case ${1:-} in
    "") prepare_venv requirements.txt ;;
    --tests) prepare_venv requirements.txt tests/requirements.txt ;;
    *)
        say "Usage: scripts/venv.sh [--tests]"
        exit 2
        ;;
    esac
fi
