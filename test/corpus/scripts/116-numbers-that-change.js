// a number that is changed is stored as JavaScript writes it
const fs = require('fs');

const v = JSON.parse(fs.readFileSync('variables.json'));
v.big += 2;
v.list[0] = -0;
v.float = 1e21;
fs.writeFileSync('variables.json', JSON.stringify(v));
