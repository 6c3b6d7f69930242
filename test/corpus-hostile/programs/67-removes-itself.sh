# Tries: to pull away what it stands on: its script, its helper, its directories.
# Outcome: succeeded 0
# Stdout: ^true\nstill here\n$
# Output: {"late":true}
rm -rf cronium.sh script_* .tmp /cronium/.launch 2>/dev/null
cronium_setVariable a b
cronium_output '{"late": true}'
echo 'still here'
