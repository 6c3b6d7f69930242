// Tries: watches and polls of many names, and changes that wake them all.
// Outcome: succeeded 0
// Stdout: ^done\n$
const fs = require('node:fs');
fs.mkdirSync('d');
for (let n = 0; n < 200; n++) {
  try {
    fs.watch('d', () => {});
  } catch (error) {
    if (!['EMFILE', 'ENOSPC'].includes(error.code)) throw error;
  }
  fs.watchFile(`d/${n}`, { interval: 10 }, () => {});
}
let round = 0;
const timer = setInterval(() => {
  for (let n = 0; n < 50; n++) fs.writeFileSync(`d/${n}`, String(round));
  if (++round < 40) return;
  clearInterval(timer);
  console.log('done');
  process.exit();
}, 20);
