# an awk program that reads input.json's lines and prints into output.json itself
jq -r '.rows[] | @tsv' input.json | awk -F '\t' '
  { sum[$1] += $2; n++ }
  END {
    printf "{" > "output.json"
    m = asorti(sum, keys)
    for (i = 1; i <= m; i++) printf "%s\"%s\": %d", (i > 1 ? ", " : ""), keys[i], sum[keys[i]] > "output.json"
    printf "}\n" > "output.json"
    close("output.json")
    print n, "rows"
    while ((getline line < "output.json") > 0) print line
  }'
