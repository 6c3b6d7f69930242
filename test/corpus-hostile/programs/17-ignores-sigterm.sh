# Tries: to outlast the time limit by ignoring every signal that can be ignored.
# Outcome: timed-out 137
# Options: --timeout 5s
for signal in $(seq 1 64); do trap '' "$signal" 2>/dev/null; done
while :; do sleep 1; done
