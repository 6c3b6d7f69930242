# flock(1): four workers add up in variables.json under a lock
for n in 1 2 3 4; do
  (
    for _ in 1 2 3; do
      flock 9
      cronium_setVariable sum $(($(cronium_getVariable sum) + n)) > /dev/null
      flock -u 9
    done
  ) 9> lock &
done
wait
cronium_getVariable sum
