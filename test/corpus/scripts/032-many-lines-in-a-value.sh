# values of several lines, with quotes, backslashes, tabs and other scripts' letters
value=$'first\nsecond\t"quoted" \\ back/slash\nüñí 中 😀'
cronium_setVariable text "$value"
[[ $(cronium_getVariable text) == "$value" ]] && echo same
cronium_getVariable text | wc -l
