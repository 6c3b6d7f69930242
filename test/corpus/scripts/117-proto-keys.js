// keys that mean something in JavaScript: __proto__, constructor, toString, length
const fs = require('fs');

const v = JSON.parse(fs.readFileSync('variables.json'));
v.n = 1;
console.log(Object.keys(v).join(), cronium.getVariable('toString'), cronium.getVariable('length'));
fs.writeFileSync('variables.json', JSON.stringify(v));
cronium.setVariable('hasOwnProperty', 'taken');
cronium.output(JSON.parse('{"__proto__": {"x": 1}}'));
