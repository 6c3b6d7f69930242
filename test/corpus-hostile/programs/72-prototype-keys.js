// Tries: keys that mean something to JavaScript, for whoever merges objects carelessly.
// Outcome: succeeded 0
// Stdout: ^same\n$
// Output: {"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}
const fs = require('node:fs');
const text = '{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}}}';
fs.writeFileSync('output.json', text);
fs.writeFileSync('variables.json', text);
console.log(fs.readFileSync('variables.json', 'utf8').replace(/\s/g, '') === text ? 'same' : 'changed');
