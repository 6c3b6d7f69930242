import { MessageChannel } from 'node:worker_threads';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { connectPort } from '#mountd/port-calls.js';

interface Math {
  half(n: number): Promise<number>;
  never(): Promise<void>;
}
type Nothing = Record<never, never>;

function connected(t: { teardown(after: () => void): void }) {
  const { port1, port2 } = new MessageChannel();
  t.teardown(() => port1.close());
  connectPort<Nothing, Math>(port1, {
    half: async (n) => {
      if (n % 2 !== 0) throw new BridgeError('invalid', `${n} is odd`);
      return n / 2;
    },
    never: async () => await new Promise(() => {}),
  });
  return connectPort<Math, Nothing>(port2, {});
}

void t.test('a result and a failure come back as they were', async (t) => {
  const { calls } = connected(t);
  t.equal(await calls.half(4), 2);
  await t.rejects(calls.half(3), { code: 'invalid', message: '3 is odd' });
});

void t.test(
  'when the other thread has died, waiting calls fail, and so do later ones',
  async (t) => {
    const connection = connected(t);
    const { calls } = connection;
    const waiting = calls.never();
    connection.fail(new BridgeError('unavailable', 'the thread has ended'));
    await t.rejects(waiting, { code: 'unavailable' });
    await t.rejects(calls.half(2), { code: 'unavailable' });
  },
);
