# Tries: to kill every process it can see, and the first one by its number.
# Outcome: killed 137
# Stdout: ^before\n$
echo before
kill -KILL 1
kill -KILL -1
kill -KILL $$
echo after
