# event.json: every key, in its order
jq -c . event.json
jq -r 'keys_unsorted | join(",")' event.json
wc -l < event.json
