# --commit on-success and exit 3: no variable and no condition, the output is kept
cronium_setVariable a 2
cronium_setCondition true
cronium_output '"kept"'
cronium_getVariable a
exit 3
