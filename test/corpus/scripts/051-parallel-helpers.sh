# eight background setVariable, one at a time under flock, each with a key of its own
for n in 1 2 3 4 5 6 7 8; do
  (flock 9; cronium_setVariable "k$n" "$n") 9> lock &
done
wait
jq -c 'del(.__updated__)' variables.json
