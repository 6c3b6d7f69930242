# duplicate keys: the last value counts; in nested objects the text stays
echo '{"a": 1, "b": {"c": 1, "c": 2}, "a": 2}' > variables.json
echo '{"condition": true, "condition": false}' > condition.json
echo '{"x": 1, "x": 2}' > output.json
