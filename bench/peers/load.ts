// One load generator: connects to one peer and measures what the bench asks for.
import { answerQuestions } from '../lib/generator-process.js';
import { type KeyValueClient, openClient, type Target } from '../lib/key-value-client.js';
import { type Cell, fill, measure } from '../lib/load-generator.js';

const target = JSON.parse(process.argv[2] ?? '') as Target;

answerQuestions<Cell, KeyValueClient>(
  async () => {
    const client = await openClient(target);
    if (target.kind !== 'echo') await fill(client);
    return client;
  },
  async (client, cell) => await measure(client, cell),
);
