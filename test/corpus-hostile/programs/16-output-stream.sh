# Tries: to write output.json for ever; the writer does not stop at an error.
# Outcome: timed-out 137|timed-out 143
# Stderr: ^((yes: standard output: File too large|Warning: Failed to parse output\.json: [^\n]+)\n)*$
# Warnings: ^Warning: Failed to parse output\.json: [^\n]+\nWarning: output\.json is kept up to 262144 characters$
# Options: --timeout 6s
while :; do yes '{"a": 1}' >> output.json; done
