import t from 'tap';
import { MASKED_BYTES_MAX } from '#bridge/wire/mask.js';
import { MaskedLog } from '#mountd/masked-log.js';

/** What a reader of both streams gets, in the order of arrival. */
function reader() {
  const shown: string[] = [];
  const log = new MaskedLog(async ({ stream, data }) => {
    shown.push(`${stream === 'stdout' ? '1' : '2'}:${Buffer.from(data).toString()}`);
  });
  const print = async (text: string, stream: 'stdout' | 'stderr' = 'stdout') =>
    await log.push({ stream, data: Buffer.from(text) });
  return { log, shown, print };
}

void t.test(
  'a secret printed in two writes is masked, and each stream keeps its order',
  async (t) => {
    const { log, shown, print } = reader();
    log.learn([
      { key: 'password', text: '"hunter2"', secret: true },
      { key: 'city', text: '"Oslo"' },
    ]);
    await print('Oslo: hun');
    await print('oops hun', 'stderr');
    await print('ter2\n');
    await print('ting\n', 'stderr');
    await print('the end: hunt');
    log.end();
    t.same(shown, ['1:Oslo: ', '2:oops ', '1:***\n', '2:hunting\n', '1:the end: ', '1:hunt']);
  },
);

void t.test(
  'secrets that arrive, change or go during the run are masked from then on',
  async (t) => {
    const { log, shown, print } = reader();
    await print('first-value\n');
    log.learn([{ key: 'k', text: '"first-value"' }]);
    await print('first-value\n');
    log.learn([{ key: 'k', text: '"first-value"', secret: true }]);
    await print('first-value\n');
    log.learn([{ key: 'k', text: '{"user": "ada.l", "pin": 123456}' }]);
    await print('first-value ada.l 123456\n');
    log.learn([{ key: 'k', text: null }]);
    await print('ada.l\n');
    t.same(shown.join('').replaceAll('1:', '').split('\n'), [
      'first-value',
      'first-value',
      '***',
      '*** *** ***',
      '***',
      '',
    ]);
    t.ok(log.isSecret('k'), 'once secret, always secret in this run');
    t.equal(log.mask('Warning: Unexpected token in 123456'), 'Warning: Unexpected token in ***');
  },
);

void t.test('bytes are masked as they are and in base64', async (t) => {
  const { log, shown, print } = reader();
  const bytes = Buffer.from('-- key material --');
  log.learn([{ key: 'key', text: JSON.stringify(bytes.toString('base64')), secret: true }]);
  await print(`a ${bytes.toString()} b ${bytes.toString('base64')} c\n`);
  t.same(shown, ['1:a *** b *** c\n']);
});

void t.test(
  'when there is more than can be masked, nothing is shown and a warning says so',
  async (t) => {
    const { log, shown, print } = reader();
    const long = (letter: string) => `"${letter.repeat(MASKED_BYTES_MAX / 2)}"`;
    log.learn([{ key: 'a', text: long('a'), secret: true }]);
    await print('one\n');
    log.learn([{ key: 'a', text: long('b') }]);
    await print('two\n');
    t.equal(log.warning, undefined, 'values that were replaced make room');
    log.learn([{ key: 'c', text: long('c'), secret: true }]);
    await print('three\n');
    log.end();
    t.same(shown, ['1:one\n', '1:two\n']);
    t.match(log.warning, /secret variables have more than 131072 bytes.*is not shown/);
    t.equal(log.mask('anything'), '***');
  },
);
