# Tries: to be neither running nor ended: the script stops itself.
# Outcome: timed-out 137|timed-out 143
# Stdout: ^stopping\n$
# Options: --timeout 5s
echo stopping
kill -STOP $$
echo 'it went on'
