# the string "false" as condition is true
echo '{"condition": "false", "why": null}' > condition.json
