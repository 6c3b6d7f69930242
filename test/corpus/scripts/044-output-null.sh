# output null is an output
echo null > output.json
cronium_setCondition 0
