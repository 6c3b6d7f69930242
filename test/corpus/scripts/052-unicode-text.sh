# letters and escapes keep the form they were written in
cat > variables.json << 'END'
{"plain": "é中😀", "escaped": "\u00e9\u4e2d\ud83d\ude00", "slash": "a\/b", "clé à 😀": 1}
END
jq -r '.plain == .escaped' variables.json
cat variables.json > output.json
