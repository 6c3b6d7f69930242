# echo > output.json, twice: truncation on open, the last close wins, 1.0 stays 1.0
echo '{"n": 1}' > output.json
echo '  {"n": 1.0}  ' > output.json
cat output.json
