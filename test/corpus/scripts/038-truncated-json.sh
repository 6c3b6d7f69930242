# variables.json cut off in the middle, as after a full disk
head -c 12 variables.json > t
mv t variables.json
cat variables.json
