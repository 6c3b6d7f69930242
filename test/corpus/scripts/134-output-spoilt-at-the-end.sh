# a good output.json and condition.json, spoilt by what is appended at the end
echo '{"good": true}' > output.json
cronium_setCondition 1
echo '{"more": true}' >> output.json
echo x >> condition.json
