# a value of 300 kB, and an output larger than that
big=$(head -c 300000 /dev/zero | tr '\0' x)
cronium_setVariable big "$big"
cronium_getVariable big | wc -c
{ printf '"'; head -c 2000000 /dev/zero | tr '\0' y; printf '"'; } > output.json
stat -c %s output.json
