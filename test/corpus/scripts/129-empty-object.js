// {} deletes all, and then a new start
const fs = require('fs');

fs.writeFileSync('variables.json', '{}');
console.log(fs.readFileSync('variables.json', 'utf8'), cronium.getVariable('a'));
cronium.setVariable('b', 3);
cronium.setVariable('c', 3);
