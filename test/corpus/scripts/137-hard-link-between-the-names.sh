# one file under two special names by a hard link, written once more through one of them
echo '{"condition": false}' > condition.json
ln condition.json output.json
echo '{"condition": true, "twice": 2}' > output.json
stat -c '%h %s' condition.json
