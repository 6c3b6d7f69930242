# find, xargs, sort, wc and du in a tree of scratch files
mkdir -p a/b/c
for f in a/1 a/b/2 'a/b/c/3 x'; do echo "$f" > "$f"; done
find a -type f | sort
find a -type f -name '*x' -print0 | xargs -0 cat
find . -maxdepth 1 -name '*.json' -printf '%f %y\n' | sort
find a -type f -delete && find a -type d -empty | sort
