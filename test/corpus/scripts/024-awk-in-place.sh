# gawk -i inplace rewrites variables.json; awk reads it by line
gawk -i inplace '/"count"/ { sub(/[0-9]+/, 10 + gensub(/[^0-9]/, "", "g")) } { print }' variables.json
awk -F'[":, ]+' '/count/ { print $3 }' variables.json
