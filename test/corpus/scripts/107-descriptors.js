// appendFileSync, truncateSync, openSync with wx and r+, writeSync at a position, ftruncate, fsync
const fs = require('fs');

fs.appendFileSync('output.json', '{"a": 1');
fs.appendFileSync('output.json', '}   tail');
fs.truncateSync('output.json', 8);
try {
  fs.openSync('output.json', 'wx');
} catch (error) {
  console.log(error.code);
}
const fd = fs.openSync('output.json', 'r+');
fs.writeSync(fd, '42}', 6);
fs.fsyncSync(fd);
console.log(fs.fstatSync(fd).size, fs.readFileSync('output.json', 'utf8'));
fs.ftruncateSync(fd, 0);
fs.writeSync(fd, '[0]', 0);
fs.closeSync(fd);
