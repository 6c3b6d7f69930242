# heredocs: one that expands, one that does not
who=world
cat > output.json << END
{"hello": "$who", "sum": $((1 + 2))}
END
cat << 'END' > condition.json
{"condition": "$who"}
END
