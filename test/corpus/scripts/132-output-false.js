// false as output, 0 as condition, and a bigger truth after it
const fs = require('fs');

fs.writeFileSync('output.json', JSON.stringify(false));
fs.writeFileSync('condition.json', JSON.stringify({ condition: 0, note: 'off' }));
