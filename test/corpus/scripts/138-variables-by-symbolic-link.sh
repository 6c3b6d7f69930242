# variables.json is a link to a scratch file that is written elsewhere
mkdir data
jq '.a = 2 | del(.b)' variables.json > data/v.json
rm variables.json
ln -s data/v.json variables.json
cronium_getVariable a
jq '.c = 3' data/v.json > t && cat t > data/v.json
