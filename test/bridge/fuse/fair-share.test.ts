import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { FairShare } from '#bridge/fuse/fair-share.js';

/** What one execution's requests do to another's answers. Owners are trees; here any object will do. */
const [greedy, modest] = [{ name: 'greedy' }, { name: 'modest' }];

const reply = (id: number, bytes = 16): Uint8Array => {
  const text = Buffer.alloc(bytes);
  text.writeUInt32LE(id, 0);
  return text;
};
const idOf = (sent: Uint8Array): number => Buffer.from(sent).readUInt32LE(0);

class Turns {
  readonly sent: number[] = [];
  readonly share = new FairShare((late) => this.sent.push(idOf(late)));

  /** Asks for one answer; `sent` gets its id when it is given, now or later. */
  ask(owner: object, id: number, bytes = 16): void {
    if (!this.share.parks(owner, 40, reply(id, bytes), bytes)) this.sent.push(id);
  }
}

void t.test('an execution that is alone is never kept waiting', async (t) => {
  const turns = new Turns();
  for (let id = 0; id < 1000; id++) turns.ask(greedy, id);
  t.equal(turns.sent.length, 1000);
});

void t.test(
  'a flood leaves the other’s answers where they are, and gets its own, in order',
  async (t) => {
    const turns = new Turns();
    turns.ask(modest, 9000);
    for (let id = 0; id < 100; id++) turns.ask(greedy, id);
    turns.ask(modest, 9001);
    t.equal(turns.sent.at(-1), 9001, 'the modest one is answered at once');
    t.ok(turns.sent.length < 30, `${turns.sent.length} were answered in the first turn`);

    const first = turns.sent.length;
    for (let i = 0; i < 5 && turns.sent.length === first; i++) await turn();
    const after = turns.sent.length;
    t.ok(after > 18 && after < 60, `and a share of the rest in the next: ${after}`);
    for (let i = 0; i < 20; i++) await turn();
    t.same(
      turns.sent.filter((id) => id < 9000),
      Array.from({ length: 100 }, (_, id) => id),
      'nothing is lost or overtaken',
    );
  },
);

void t.test('large answers count for what they move', async (t) => {
  const turns = new Turns();
  turns.ask(modest, 9000);
  for (let id = 0; id < 4; id++) turns.ask(greedy, id, 1024 * 1024);
  t.same(turns.sent, [9000, 0], 'one of a mebibyte is a turn’s share');
  for (let i = 0; i < 6; i++) await turn();
  t.same(turns.sent, [9000, 0, 1, 2, 3]);
});

void t.test(
  'a flood that never leaves the queue empty still gives others their turns',
  async (t) => {
    const turns = new Turns();
    turns.ask(modest, 9000);
    let id = 0;
    const flood = () => {
      for (let i = 0; i < 5; i++) turns.ask(greedy, id++, 4096);
    };
    for (let i = 0; i < 40; i++) turns.ask(modest, 9001 + i);
    const answered = () => turns.sent.filter((sent) => sent > 9000).length;
    // Twenty milliseconds in which every poll finds another request: the turn has to end by its age.
    for (const end = performance.now() + 20; performance.now() < end; await turn()) flood();
    t.equal(answered(), 40);
  },
);

void t.test('no more than 16 MiB of answers are kept back', async (t) => {
  const turns = new Turns();
  turns.ask(modest, 9000);
  for (let id = 0; id < 40; id++) turns.ask(greedy, id, 1024 * 1024);
  t.ok(turns.sent.length >= 40 + 1 - 16, `${turns.sent.length} were answered at once`);
  for (let i = 0; i < 60; i++) await turn();
  t.equal(new Set(turns.sent).size, 41, 'and all in the end');
});
