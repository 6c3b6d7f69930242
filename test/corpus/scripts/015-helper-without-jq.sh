# the helper without jq on the PATH: reads by line, writes the file with one key only
mkdir bin && ln -s /usr/bin/cat bin/cat
PATH=$PWD/bin
cronium_getVariable city
cronium_getVariable count
cronium_setVariable city Oslo
cronium_getVariable city
