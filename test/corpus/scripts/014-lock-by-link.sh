# ln as a lock: four workers count to forty in a scratch file
echo 0 > counter
worker() {
  for _ in {1..10}; do
    echo "$1" > "mine.$1"
    until ln "mine.$1" lock 2>/dev/null; do sleep 0.01; done
    echo $(($(< counter) + 1)) > counter
    rm lock
  done
}
for n in 1 2 3 4; do worker $n & done
wait
cp counter output.json
