# mv -n, cp -n, install, ln -f and set -o noclobber on names that are taken
echo '{"first": 1}' > output.json
echo '{"second": 2}' > other.json
mv -n other.json output.json; ls other.json
cp -n other.json output.json
(set -C; echo '{"third": 3}' > output.json) 2>/dev/null || echo noclobber
cat output.json
install -m 640 other.json output.json && stat -c %a output.json
ln -f other.json condition.json && stat -c %h other.json
