# Tries: a fork bomb, to take every process number and all of the processor.
# Outcome: timed-out 137|failed 254|timed-out 143|killed 137
# Stderr: fork: (retry: )?Resource temporarily unavailable
# Options: --timeout 10s
bomb() { bomb | bomb & }
bomb
wait
while :; do bomb; sleep 0.1; done
