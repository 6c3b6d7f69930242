// fs.promises: opendir, appendFile, access, utimes; many reads and writes at once
const fs = require('fs/promises');

(async () => {
  await Promise.all(Array.from({ length: 50 }, (_, n) => fs.writeFile(`f${n}`, `${n}`)));
  await Promise.all(Array.from({ length: 50 }, (_, n) => fs.appendFile(`f${n}`, '!')));
  const texts = await Promise.all(Array.from({ length: 50 }, (_, n) => fs.readFile(`f${n}`, 'utf8')));
  console.log(texts.every((text, n) => text === `${n}!`));
  let count = 0;
  for await (const entry of await fs.opendir('.')) if (entry.isFile() && /^f\d+$/.test(entry.name)) count++;
  console.log(count, await fs.access('output.json').catch((error) => error.code));
  await fs.utimes('f0', 1, 2.5);
  console.log((await fs.stat('f0')).mtimeMs, (await fs.stat('f1', { bigint: true })).size);
})();
