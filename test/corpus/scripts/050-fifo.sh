# mkfifo in the run directory: a writer in the background, a reader into output.json
mkfifo pipe
[[ -p pipe ]] && echo fifo
{ echo '{"through":'; sleep 0.1; echo '"a fifo"}'; } > pipe &
cat pipe > output.json
wait
jq -r .through output.json
