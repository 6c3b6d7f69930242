# a good variables.json, spoilt at the end
echo '{"a": 2}' > variables.json
echo '{"a": 3' > variables.json
