// fs.promises and async functions, several files at once
const fs = require('fs/promises');

async function main() {
  const [v, input] = await Promise.all(['variables.json', 'input.json'].map(async (f) => JSON.parse(await fs.readFile(f, 'utf8'))));
  await Promise.all([
    fs.writeFile('output.json', JSON.stringify({ ...input, ...v })),
    fs.writeFile('condition.json', '{"condition": []}'),
    fs.writeFile('variables.json', JSON.stringify({ ...v, ...input })),
  ]);
  const handle = await fs.open('output.json', 'r+');
  const { bytesRead } = await handle.read(Buffer.alloc(5), 0, 5, 0);
  await handle.close();
  console.log(bytesRead, (await fs.stat('condition.json')).size);
}
main().then(() => console.log('done'));
