# a byte-order mark is a parse error, in every file
printf '\xef\xbb\xbf{"a": 1}' | tee variables.json output.json > condition.json
printf '\xef\xbb\xbf{"condition": true}' > condition.json
head -c 3 output.json | od -An -tx1
