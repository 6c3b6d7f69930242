// a temporary file renamed over variables.json; output.json renamed away and back
const fs = require('fs');
const os = require('os');
const path = require('path');

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'job-'));
fs.writeFileSync(path.join(dir, 'v'), JSON.stringify({ ...JSON.parse(fs.readFileSync('variables.json')), b: 2 }));
fs.renameSync(path.join(dir, 'v'), 'variables.json');
fs.writeFileSync('output.json', '"here"');
fs.renameSync('output.json', 'away');
fs.writeFileSync('output.json', '"other"');
fs.renameSync('away', 'output.json');
fs.rmSync(dir, { recursive: true });
console.log(fs.readFileSync('output.json', 'utf8'), fs.readdirSync(os.tmpdir()).length);
