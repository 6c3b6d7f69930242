import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ExecutionId } from '#bridge/wire/names.js';
import { Executions } from '#server/services/executions.js';
import { VariableCache } from '#server/services/variable-cache.js';
import { LARGE_LIMITS } from '#server/store/large-values.js';
import { MemoryStore } from '#server/store/memory-store.js';
import type { Key, Store } from '#server/store/store.js';

/** Counts the watches that nobody has stopped. */
class CountedWatches extends MemoryStore {
  watches = 0;

  override watch(prefix: Key, listener: Parameters<Store['watch']>[1], since?: number): () => void {
    this.watches++;
    const stop = super.watch(prefix, listener, since);
    return () => {
      this.watches--;
      stop();
    };
  }
}

void t.test('a thousand names nobody has a variable for do not stay in the cache', async (t) => {
  const store = new CountedWatches(undefined, LARGE_LIMITS);
  const cache = new VariableCache(store, undefined, 10);
  for (let i = 0; i < 1000; i++) await cache.read({ user: `u${i}` });
  t.equal(store.watches, 10);
});

void t.test(
  'who begins to watch an execution when it has just ended hears of its end',
  async (t) => {
    const store = new MemoryStore(undefined, LARGE_LIMITS);
    const executions = new Executions(store);
    const place = {
      executionId: ExecutionId.parse('0f5a3c52-6f5e-4c1e-9a50-111111111111'),
      namespace: { user: 'ada' },
    };
    await executions.finish(place, {
      status: 'succeeded',
      exitCode: 0,
      signal: null,
      warnings: [],
      startedAt: 1,
      finishedAt: 2,
    });
    let heard = 0;
    const stop = executions.onEnd(place, () => heard++);
    await sleep(20);
    t.equal(heard, 1);
    stop();
  },
);
