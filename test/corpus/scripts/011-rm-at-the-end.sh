# a variables.json, output.json and condition.json that are deleted in the end count for nothing
echo '{"never": "stored"}' > output.json
echo '{"condition": true}' > condition.json
rm variables.json output.json condition.json
ls -- *.json
