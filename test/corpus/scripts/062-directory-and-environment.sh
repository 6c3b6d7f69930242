# what is in the run directory, and nothing but the contract's environment
ls -A | sed 's/[0-9]\{8,\}/N/'
stat -c '%a %F' cronium.sh script_*.sh
pwd
[[ $0 == script_*.sh && ${BASH_SOURCE[0]} == "$0" ]] && echo "$#"
env | grep -Ev '^(_|SHLVL|PWD|OLDPWD)=' | sort
