// symlinkSync, linkSync, unlinkSync, realpathSync and lstatSync on the special names
const fs = require('fs');

fs.writeFileSync('scratch', '{"condition": true}');
fs.symlinkSync('scratch', 'condition.json');
fs.linkSync('variables.json', 'v2');
fs.unlinkSync('variables.json');
fs.renameSync('v2', 'variables.json');
fs.linkSync('scratch', 'output.json');
fs.unlinkSync('scratch');
fs.writeFileSync('output.json', '{"condition": false, "n": 1}');
fs.linkSync('output.json', 'scratch');
console.log(fs.lstatSync('condition.json').isSymbolicLink(), fs.realpathSync('condition.json'), fs.statSync('output.json').nlink);
