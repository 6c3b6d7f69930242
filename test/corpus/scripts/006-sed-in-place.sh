# sed -i on variables.json: a temporary file in the same directory, renamed over
sed -i 's/"old"/"new"/; s/: 1,/: 2,/' variables.json
sed -n 2p variables.json
