# --compat exact: text on stderr fails the run, whatever the exit code
echo oops >&2
cronium_setVariable a 2
