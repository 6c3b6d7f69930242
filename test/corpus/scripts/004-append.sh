# >> builds output.json in pieces that are no JSON until the last
echo '[' > output.json
for i in 1 2 3; do echo "$i," >> output.json; done
echo '4]' >> output.json
wc -l < output.json
