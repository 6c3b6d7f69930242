// JavaScript rounds what it reads and writes: big integers, 1.0, exponents, 1e400
cronium.setVariable('n', 1);
console.log(JSON.stringify(cronium.getVariable('big')), cronium.getVariable('huge'));
console.log(require('fs').readFileSync('variables.json', 'utf8').replace(/"__updated__": ".*"/, 'time'));
