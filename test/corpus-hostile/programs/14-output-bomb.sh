# Tries: a small archive that unpacks to 100 MB of output.json.
# Outcome: succeeded 0
# Stdout: ^refused\n$
# Stderr: File too large
# Warnings: ^Warning: Failed to parse output\.json: [^\n]+\nWarning: output\.json is kept up to 262144 characters$
head -c 100000000 /dev/zero | tr '\0' x | gzip > bomb.gz
gzip -dc bomb.gz > output.json || echo refused
