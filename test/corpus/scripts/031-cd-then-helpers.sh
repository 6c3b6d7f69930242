# after cd the helpers miss the files and leave stray ones
mkdir sub && cd sub
echo "[$(cronium_getVariable city)]"
cronium_setVariable city Lost
cronium_output '"lost"'
cronium_input
ls
cd .. && cronium_getVariable city
