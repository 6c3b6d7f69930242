# A legacy script: it knows cronium_* helpers and files in its directory, nothing else.
name=$(cronium_input | jq -r .name)
visits=$(cronium_getVariable visits_bash)
visits=$((${visits:-0} + 1))
echo "bash: hello $name, this is visit $visits"
sleep 0.3
cronium_setVariable visits_bash "$visits" >/dev/null
cronium_output "{\"language\": \"bash\", \"visits\": $visits}"
cronium_setCondition true >/dev/null
