# Tries: lines that never end on both streams, for whoever waits for a line's end.
# Outcome: succeeded 0
# Stdout: ^\0{100}
# Stderr: ^\0{100}
head -c 20000000 /dev/zero &
head -c 20000000 /dev/zero >&2
wait
