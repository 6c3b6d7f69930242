// Tries: to keep the bridge busy by opening and closing as fast as it goes.
// Outcome: succeeded 0
// Stdout: ^30000\n$
// Options: --timeout 60s
const fs = require('node:fs');
let count = 0;
for (; count < 30000; count++) fs.closeSync(fs.openSync(`f${count % 100}`, 'a'));
console.log(count);
