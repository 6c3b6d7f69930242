# exit in the middle of writing: half an output.json, half a condition.json
printf '{"rows": [1, 2' > output.json
printf '{"condition": tr' > condition.json
exit 42
