# a background child that still holds stdout is waited for, and what it writes counts
(
  sleep 0.4
  echo late
  cronium_setVariable late yes
  echo '{"by": "child"}' > output.json
) &
echo parent
