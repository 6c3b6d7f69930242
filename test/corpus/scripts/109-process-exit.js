// process.exit in the middle; an exit handler writes the output
const fs = require('fs');

process.on('exit', (code) => fs.writeFileSync('output.json', JSON.stringify({ code })));
cronium.setVariable('reached', 1);
setTimeout(() => cronium.setVariable('never', 1), 1000);
console.log('leaving');
process.exit(6);
