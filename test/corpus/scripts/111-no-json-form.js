// what has no JSON form: an error on stderr, no file
const circular = {};
circular.self = circular;
cronium.output(circular);
cronium.output(1n);
cronium.output(undefined);
console.log(require('fs').existsSync('output.json'), cronium.setVariable('big', 1n), cronium.getVariable('a'));
