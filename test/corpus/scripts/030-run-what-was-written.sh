# chmod +x and execution of files just written, with and without #!
cat > tool << 'END'
#!/bin/bash
echo "tool $1 in ${PWD##*/}"
END
./tool x 2>/dev/null || echo "not yet: $?"
chmod +x tool
./tool x
cp tool copy && ./copy y
cat > counted.awk << 'END'
#!/usr/bin/awk -f
END { print NR }
END
chmod 755 counted.awk
./counted.awk variables.json
exec ./tool last
