# functions, subshells, pipes, command substitution, coproc: whose writes and variables are whose
total=0
seq 1 4 | while read -r n; do total=$((total + n)); done
add() { local sum=0 n; for n; do ((sum += n)); done; echo $sum; }
echo "$total $(add 1 2 3 4)"
(total=5; cronium_setVariable inner $total) > /dev/null
answer=$(cronium_setCondition 1)
echo "$answer [$(cronium_getCondition)]"
coproc awk '{ print toupper($0); fflush() }'
echo shout >&"${COPROC[1]}"
read -r loud <&"${COPROC[0]}"
exec {COPROC[1]}>&-
echo "$loud" | tee /dev/stderr | tr A-Z a-z
echo "${PIPESTATUS[*]}"
