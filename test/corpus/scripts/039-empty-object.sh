# {} deletes all
echo '{}' > variables.json
