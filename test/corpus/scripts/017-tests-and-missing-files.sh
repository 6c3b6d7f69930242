# [[ -f ]], -s, -r, -w; cat of what is not there, 2>/dev/null
for f in input event variables output condition; do
  [[ -f $f.json && -s $f.json && -r $f.json && -w $f.json ]] && echo "$f" || echo "no $f"
done
cat output.json 2>/dev/null || echo "cat: $?"
[ ! -e condition.json ] && [ -x cronium.sh ] && [ -d . ] && echo fine
