# text on stderr does not fail a run
echo out
echo oops >&2
ls nowhere 2>/dev/null
echo '{"fine": true}' > output.json
