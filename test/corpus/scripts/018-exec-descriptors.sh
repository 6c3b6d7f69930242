# exec N<> reads and writes one open file; exec N< and read -u
exec 3<> output.json
echo '{"through": 3}' >&3
exec 3>&-
exec 4< variables.json
while read -r -u 4 line; do echo "<$line>"; done
exec 4<&-
exec 5<> variables.json # no truncation: overwrites from the start
printf '{\n  "a": 9' >&5
exec 5>&-
