// streams: many small writes to output.json, a pipe of files, readline over variables.json
const fs = require('fs');
const readline = require('readline');
const { pipeline } = require('stream/promises');

(async () => {
  const out = fs.createWriteStream('rows.json');
  out.write('[');
  for (let i = 0; i < 2000; i++) out.write(`${i === 0 ? '' : ','}${i}`);
  await new Promise((done) => out.end(']', done));
  await pipeline(fs.createReadStream('rows.json'), fs.createWriteStream('output.json'));
  for await (const line of readline.createInterface({ input: fs.createReadStream('variables.json') })) console.log(`> ${line}`);
  console.log(JSON.parse(fs.readFileSync('output.json', 'utf8')).length);
})();
