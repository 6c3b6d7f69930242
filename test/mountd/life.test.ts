import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { bootId, Life } from '#mountd/life.js';

function directory(t: { teardown(after: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), 'cronium-life-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

void t.test(
  'a restart of the machine is told from one of mountd, until it was reported',
  async (t) => {
    const file = join(directory(t), 'life.json');
    const first = new Life(file, 'boot 1');
    first.settled();
    const second = new Life(file, 'boot 1');
    t.equal(second.reason, 'mountd was restarted');
    t.equal(second.instance, first.instance, 'the same mountd');

    t.equal(new Life(file, 'boot 2').reason, 'the machine was restarted');
    const again = new Life(file, 'boot 2');
    t.equal(again.reason, 'the machine was restarted', 'the one before died before it could tell');
    again.settled();
    t.equal(new Life(file, 'boot 2').reason, 'mountd was restarted');
    t.equal(again.instance, first.instance);
  },
);

void t.test(
  'two state directories are two instances; nothing is left beside the file',
  async (t) => {
    const [one, two] = [directory(t), directory(t)];
    t.not(new Life(join(one, 'life.json')).instance, new Life(join(two, 'life.json')).instance);
    t.same(readdirSync(one), ['life.json']);
    t.match(JSON.parse(readFileSync(join(one, 'life.json'), 'utf8')), { bootId: bootId() });
  },
);

void t.test('a file that cannot be understood is begun anew', async (t) => {
  const file = join(directory(t), 'life.json');
  for (const text of [
    '',
    '{',
    '{"instance":"","bootId":""}',
    '{"instance":"a/b","bootId":"x"}',
    'null',
  ]) {
    writeFileSync(file, text);
    const { instance } = new Life(file);
    t.match(instance, /^[0-9a-f-]{36}$/);
    t.equal(new Life(file).instance, instance);
  }
});
