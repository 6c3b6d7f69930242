#!/bin/bash
# Cronium helper for Bash 5. Source it from the run directory: source ./cronium.sh
#
#   cronium_input                      print the event's input
#   cronium_event                      print what is known about the event
#   cronium_output "$json"             write output.json
#   cronium_getVariable KEY            print a variable; nothing when there is none
#   cronium_setVariable KEY VALUE      store a string; print true, or false (status 1) when that failed
#   cronium_setCondition VALUE         write condition.json; print true or false
#   cronium_getCondition               print what cronium_setCondition set in this shell, or nothing
#
# Data is taken from the argument, never from stdin. A missing argument is an empty string: cronium_output alone
# writes an empty line (which is no JSON, so the run has no output), cronium_setCondition alone means false.
# Paths are relative: after a `cd` the files are looked for, and created, in the new directory.
# jq is used when there is one, at most once a call; nothing else but cat is run.

# Read once, now. `exec` saves the second fork that a redirection costs inside $( ).
_cronium_input=$(exec cat input.json 2>/dev/null) || _cronium_input=
_cronium_event=$(exec cat event.json 2>/dev/null) || _cronium_event=
_cronium_condition=

# Whether a text can be JSON, judged by how it begins and ends: finds missing, empty and cut-off files without a fork.
_cronium_looksLikeJson() {
  local text=${1#"${1%%[![:space:]]*}"}
  case $text in
    '{'*'}' | '['*']' | '"'*'"' | -[0-9]* | [0-9]* | true | false | null) return 0 ;;
  esac
  return 1
}
_cronium_looksLikeJson "$_cronium_input" || _cronium_input='{}'
_cronium_looksLikeJson "$_cronium_event" || _cronium_event='{}'

cronium_input() {
  printf '%s\n' "$_cronium_input"
}

cronium_event() {
  printf '%s\n' "$_cronium_event"
}

cronium_output() {
  printf '%s\n' "${1-}" > output.json
}

# false and null print nothing, and so do keys that are not plain names (a "-", a space, a leading digit).
cronium_getVariable() {
  [[ ${1-} =~ ^[A-Za-z_][A-Za-z0-9_.]*$ && -f variables.json ]] || return 0
  if command -v jq > /dev/null; then
    jq -Rrs --arg key "$1" "$_cronium_jqDocument"' | .[$key] // empty' variables.json 2>/dev/null || :
  else
    _cronium_findLine "$1" < variables.json
  fi
}

# The whole file is read, then written in place. Without jq it is written anew, with this key only, and a quote or
# backslash in the value makes it invalid JSON.
cronium_setVariable() {
  local key=${1-} value=${2-} now document file=variables.json
  printf -v now '%(%Y-%m-%dT%H:%M:%S%z)T' -1
  now=${now:0:22}:${now:22} # as date -Iseconds writes it: +0000 becomes +00:00
  if command -v jq > /dev/null; then
    local jq=(jq -Rs --arg key "$key" --arg now "$now")
    local program=$_cronium_jqDocument' | .[$key] = $value | .__updated__ = $now'
    [[ -f $file ]] || file=/dev/null
    if ((${#value} <= 30000)); then
      document=$(exec "${jq[@]}" --arg value "$value" "$program" "$file") || document=
    else # the kernel takes 128 KiB in one argument, so a long value comes on stdin, with the newline that <<< adds
      program='$line[:-1] as $value | '$program
      document=$(exec "${jq[@]}" --rawfile line /dev/stdin "$program" "$file" <<< "$value") || document=
    fi
  else
    document="{
  \"$key\": \"$value\",
  \"__updated__\": \"$now\"
}"
  fi
  if [[ -n $document ]] && printf '%s\n' "$document" > variables.json; then
    echo true
  else
    echo "Error setting variable: $key" >&2
    echo false
    return 1
  fi
}

cronium_setCondition() {
  case ${1-} in
    '' | false | 0) _cronium_condition=false ;;
    *) _cronium_condition=true ;;
  esac
  printf '{"condition": %s}\n' "$_cronium_condition" > condition.json
  echo "$_cronium_condition"
}

cronium_getCondition() {
  [[ -z $_cronium_condition ]] || echo "$_cronium_condition"
}

# For jq -Rs: the object in the file; {} for a missing or empty file, invalid JSON, and JSON that is not an object.
_cronium_jqDocument='(select(startswith("\ufeff") | not) | fromjson? | objects) // {}'

# Without jq: looks on stdin for a line `"KEY": value` and prints the value. Strings are printed as they stand in the
# file, escapes included; objects and lists are not printed. The least indented line wins, so a member of a nested
# object does not hide a variable of the same name.
_cronium_findLine() {
  local line lines indent least=-1 found=
  local member="^(\{|\{.*,)?([[:space:]]*)\"${1//./[.]}\"[[:space:]]*:[[:space:]]*(.*)"
  mapfile -t lines
  for line in "${lines[@]}"; do
    [[ $line == *"\"$1\""* && $line =~ $member ]] || continue
    indent=${#BASH_REMATCH[2]}
    if ((least < 0 || indent < least)); then
      least=$indent found=${BASH_REMATCH[3]}
    fi
  done
  local string='^"(([^"\\]|\\.)*)"' bare='^(-?[0-9][0-9.eE+-]*|true)'
  if [[ $found =~ $string || $found =~ $bare ]]; then
    printf '%s\n' "${BASH_REMATCH[1]}"
  fi
}
