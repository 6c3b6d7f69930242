// ES module syntax, with top-level await
import { readFile, writeFile } from 'node:fs/promises';

const { a } = JSON.parse(await readFile('variables.json', 'utf8'));
await writeFile('output.json', JSON.stringify(a));
