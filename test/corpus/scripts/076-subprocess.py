# subprocess: pipes, shell, jq on the files, exit codes, a file as stdout
import subprocess

print(subprocess.run(['jq', '-r', '.city', 'variables.json'], capture_output=True, text=True).stdout.strip())
subprocess.run("jq '.city = \"Turin\"' variables.json > t && mv t variables.json", shell=True, check=True)
with open('output.json', 'w') as f:
    subprocess.run(['jq', '-c', '{city}', 'variables.json'], stdout=f, check=True)
print(subprocess.call('exit 5', shell=True), subprocess.check_output(['tr', 'a-z', 'A-Z'], input=b'loud\n'))
print(cronium.getVariable('city'))
