# tar, gzip and checksums over scratch files and the special names
mkdir -p pack/sub
seq 1 1000 > pack/numbers
cp variables.json pack/sub/
tar -czf pack.tgz pack
mkdir out && tar -xzf pack.tgz -C out
(cd out/pack && sha256sum numbers | cut -c1-16; cat sub/variables.json; echo)
gzip -k pack/numbers && zcat pack/numbers.gz | tail -1
tar -cf - -C out/pack/sub variables.json | tar -xOf - | jq .a > output.json
