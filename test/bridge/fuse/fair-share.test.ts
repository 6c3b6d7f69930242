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

void t.test('no more than 16 MiB of answers are kept back', async (t) => {
  const turns = new Turns();
  turns.ask(modest, 9000);
  for (let id = 0; id < 40; id++) turns.ask(greedy, id, 1024 * 1024);
  t.equal(turns.sent.length, 40 + 1 - 16, 'the others are given out of turn');
});
