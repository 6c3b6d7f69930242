// process.chdir: the helper misses the files and leaves stray ones
const fs = require('fs');

fs.mkdirSync('sub');
process.chdir('sub');
console.log(cronium.getVariable('city'), cronium.setVariable('city', 'Lost'), cronium.getVariable('city'), fs.readdirSync('.'));
cronium.output('lost');
process.chdir('..');
console.log(cronium.getVariable('city'), JSON.stringify(cronium.input()));
