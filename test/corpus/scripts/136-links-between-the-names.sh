# one file under two special names: condition.json leads to output.json
echo '{"condition": 5, "shared": true}' > output.json
ln -s output.json condition.json
jq -r .condition condition.json
