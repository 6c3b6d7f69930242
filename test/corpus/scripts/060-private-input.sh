# input.json and event.json may be changed for the run's own use
cronium_input
echo '{"mine": 1}' > input.json
sed -i 's/nightly/daily/' event.json
cat input.json
jq -r .name event.json
cronium_input
rm event.json
jq -c 'keys' input.json
