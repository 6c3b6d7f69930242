# ln -s: output.json and condition.json lead to scratch files
ln -s result.txt output.json
mkdir deep && ln -s deep/c condition.json
echo '{"through": "a link"}' > result.txt
echo '{"condition": 1}' > condition.json
readlink output.json
cat deep/c
