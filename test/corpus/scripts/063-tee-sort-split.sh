# tee, sort -o on itself, split and paste
printf 'c\nb\na\n' | tee list > /dev/null
sort -o list list
split -l 1 list part.
paste -sd, part.*
jq -Rn '[inputs]' -c list | tee output.json copy.json
cmp output.json copy.json
