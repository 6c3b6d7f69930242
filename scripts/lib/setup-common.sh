# shellcheck shell=bash
# Talking, timing and running, for scripts/setup and its parts. Sourced, never run.

readonly setup_began=$EPOCHREALTIME

# EPOCHREALTIME uses the locale's decimal mark; microseconds as an integer avoid both that and a fork of date(1).
now_us() { local t=$EPOCHREALTIME; printf '%s' "${t//[!0-9]/}"; }
since() { # since <EPOCHREALTIME>: seconds with one decimal
  local tenths=$((($(now_us) - ${1//[!0-9]/}) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

say() { printf 'setup: %s\n' "$*" >&2; }
# For what was already there: left out by --quiet.
note() { [ -n "${quiet:-}" ] || say "$@"; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# step <log name> <what> <command...>: one line before, one after with the time; the output only if it fails.
step() {
  local log="$logs/$1.log" what=$2 began=$EPOCHREALTIME
  shift 2
  say "$what ..."
  if "$@" >"$log" 2>&1 </dev/null; then
    say "$what: done in $(since "$began") s"
  else
    tail -n 25 "$log" >&2
    die "$what failed after $(since "$began") s; its last lines are above, all of them in $log"
  fi
}
