// an unhandled rejection ends the run with 1; half an output stays half
const fs = require('fs');

cronium.setVariable('before', true);
const fd = fs.openSync('output.json', 'w');
fs.writeSync(fd, '{"rows": [');
Promise.reject(new Error('nobody listens'));
