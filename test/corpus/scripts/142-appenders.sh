# four processes append lines to one log at once: none is lost or torn
for n in 1 2 3 4; do
  (for i in {1..100}; do echo "worker $n line $i" >> run.log; done) &
done
wait
wc -l < run.log
grep -cvE '^worker [1-4] line [0-9]+$' run.log
(for i in 1 2 3; do echo "late $i" >> run.log; sleep 0.05; done; touch done) &
tail -n 0 -f run.log --pid=$! -s 0.02 | sed -u 's/^/tail: /' | tail -n 1
