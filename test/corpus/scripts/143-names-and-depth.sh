# long names, odd names, deep paths, many files
long=$(printf 'n%.0s' {1..255})
: > "$long" && (: > "${long}n") 2>/dev/null || echo 'too long'
mkdir 'é 中 😀' && echo x > "é 中 😀/"$'new\nline' && ls -b 'é 中 😀'
d=. && for i in {1..60}; do d=$d/d$i; done && mkdir -p "$d" && echo deep > "$d/f" && cat "$d/f"
mkdir many && (cd many && seq 1 1500 | xargs touch) && ls many | wc -l
rm -rf many d1 && ls -d many d1 2>/dev/null || echo removed
mkdir twice && mkdir twice 2>/dev/null || rmdir twice && ls -d twice 2>/dev/null || echo gone
