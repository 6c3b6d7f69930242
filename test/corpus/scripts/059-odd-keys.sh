# keys the bash helper cannot read back: a dash, a space, a leading digit; and null and false
for key in 'a-b' 'a b' 7up none no yes num; do echo "$key=[$(cronium_getVariable "$key")]"; done
cronium_setVariable 'a-b' changed
