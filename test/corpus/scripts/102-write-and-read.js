// writeFileSync, readFileSync, existsSync, statSync: the plainest script
const fs = require('fs');

const v = JSON.parse(fs.readFileSync('variables.json', 'utf8'));
v.count++;
v.nested.list.push('x');
fs.writeFileSync('variables.json', JSON.stringify(v));
console.log(fs.existsSync('output.json'), fs.statSync('variables.json').size, fs.readFileSync(`${__dirname}/variables.json`, 'utf8'));
fs.writeFileSync('output.json', JSON.stringify({ done: true }, null, '\t'));
console.log(__dirname, __filename.replace(/\d+/, 'N'), process.argv.length, require.main === module);
