# every helper: input and event in, a counter read and written back, output and condition out
name=$(cronium_input | jq -r .name)
count=$(cronium_getVariable count)
cronium_setVariable count $((${count:-0} + 1))
cronium_output "{\"hello\": \"$name\", \"event\": $(cronium_event | jq .id)}"
cronium_setCondition yes
cronium_getCondition
