// require of modules and JSON that the script has just written
const fs = require('fs');

fs.mkdirSync('node_modules/tool', { recursive: true });
fs.writeFileSync('node_modules/tool/index.js', 'exports.double = (n) => 2 * n;\n');
fs.writeFileSync('config.json', '{"factor": 21}');
console.log(require('tool').double(require('./config.json').factor), require('./variables.json').a);
import('./late.mjs').catch((error) => console.log(error.code));
