# a signal to itself ends the script with 128 + the signal
cronium_setVariable last words
trap 'echo trapped' USR1
kill -USR1 $$
kill -TERM $$
echo never
