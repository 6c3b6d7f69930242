# Tries: to show its secret in its log: as it is, in pieces, in base64, on both streams.
# Outcome: succeeded 0
# Stdout: ^\*\*\*\n\*\*\*\n
# Secret: correct-horse-battery
password=$(cronium_getVariable password)
echo "$password"
printf %s "${password:0:7}"; sleep 0.2; echo "${password:7}"
echo "$password" >&2
printf %s "$password" | base64
