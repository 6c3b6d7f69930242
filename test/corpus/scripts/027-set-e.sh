# set -e: the script ends in the middle with the failing command's exit code
set -euo pipefail
cronium_setVariable before 1
grep -q nothing variables.json | cat
cronium_setVariable after 1
