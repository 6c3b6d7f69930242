// copyFileSync with and without FICLONE, cpSync of a tree
const fs = require('fs');

fs.copyFileSync('variables.json', 'saved.json', fs.constants.COPYFILE_FICLONE);
fs.mkdirSync('a/b', { recursive: true });
fs.writeFileSync('a/b/c.json', '{"c": 3}');
fs.cpSync('a', 'z', { recursive: true });
fs.copyFileSync('z/b/c.json', 'variables.json');
try {
  fs.copyFileSync('saved.json', 'variables.json', fs.constants.COPYFILE_EXCL);
} catch (error) {
  console.log(error.code, error.syscall);
}
fs.copyFileSync('saved.json', 'output.json');
console.log(fs.readFileSync('saved.json', 'utf8') === fs.readFileSync('output.json', 'utf8'));
