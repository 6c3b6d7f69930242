# truncate and dd conv=notrunc change output.json in the middle
echo '{"a": 1}garbage' > output.json
truncate -s 8 output.json
printf 7 | dd of=output.json bs=1 seek=6 conv=notrunc status=none
truncate -s +3 scratch && od -An -tx1 scratch
cat output.json
