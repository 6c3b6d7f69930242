# Tries: to end its output long before it ends itself.
# Outcome: succeeded 0
# Output: "after"
exec >&- 2>&- <&-
sleep 1
echo lost
cronium_output '"after"'
exit 0
