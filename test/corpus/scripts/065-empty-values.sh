# empty values, empty lists, white space around everything
printf ' \n{ "s" : "" , "l":[ ] ,\t"o":{ },"n":null, "b" :false,"z":0 }\r\n\n' > variables.json
cronium_setVariable s2 ''
jq -c 'del(.__updated__) | to_entries | map(.key)' variables.json
