# cp onto and from the special names, with -p and --backup, and cmp
echo '{"copied": true}' > draft.json
cp draft.json output.json
cp -p variables.json saved.json
cmp variables.json saved.json && echo same
echo '{"a": 2}' > new.json
cp --backup=simple new.json variables.json
cmp saved.json variables.json~ && echo backup
