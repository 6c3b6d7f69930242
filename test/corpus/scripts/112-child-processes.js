// child processes: execFileSync, a shell, a child's stdio in output.json, a node child
const { execFileSync, execSync, spawnSync } = require('child_process');
const fs = require('fs');

console.log(execSync("jq '.n + 1' variables.json").toString().trim());
execSync("jq '.n = 5' variables.json > t && mv t variables.json");
console.log(cronium.getVariable('n'));
const out = fs.openSync('output.json', 'w');
console.log(spawnSync('jq', ['-c', '[.n]', 'variables.json'], { stdio: ['ignore', out, 'inherit'] }).status);
fs.closeSync(out);
execFileSync(process.execPath, ['-e', "require('fs').writeFileSync('condition.json', JSON.stringify({ condition: 'x' }))"]);
