# touch makes output.json empty, chmod and stat see modes and exact sizes
touch output.json
stat -c '%s %F' output.json
chmod 600 variables.json
stat -c '%a %s' variables.json
wc -c < variables.json
touch -d '2001-02-03 04:05:06 UTC' variables.json
stat -c %Y variables.json
