import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { formsOf, leavesOf, MASKED_BYTES_MAX, Masker } from '#bridge/wire/mask.js';
import { type Random, randomTest } from '#test/support/random.js';

const PASSWORD = 'p4ss w/"ö"+word';

void t.test('a secret is masked however programs print it', async (t) => {
  const masker = new Masker([JSON.stringify(PASSWORD)]);
  const printed: Record<string, string> = {
    'as it is': PASSWORD,
    'in JSON': JSON.stringify(PASSWORD).slice(1, -1),
    'in JSON by Python': JSON.stringify(PASSWORD).slice(1, -1).replace('ö', '\\u00f6'),
    'in JSON by PHP': JSON.stringify(PASSWORD).slice(1, -1).replace('/', '\\/'),
    'in base64': Buffer.from(PASSWORD).toString('base64'),
    'in base64 for URLs': Buffer.from(PASSWORD).toString('base64url'),
    'by encodeURIComponent': encodeURIComponent(PASSWORD),
    'in a form': new URLSearchParams({ p: PASSWORD }).toString().slice(2),
    'in a URL in lower case': encodeURIComponent(PASSWORD).replace(/%../g, (c) => c.toLowerCase()),
  };
  for (const [how, text] of Object.entries(printed))
    t.equal(masker.mask(`before ${text} after`), 'before *** after', how);
});

void t.test('a secret within something longer in base64 is masked but for its edges', async (t) => {
  const masker = new Masker(['correct horse battery']);
  for (const user of ['a', 'ab', 'abc', 'abcd']) {
    const header = Buffer.from(`${user}:correct horse battery;`).toString('base64');
    const masked = masker.mask(header);
    t.match(masked, /\*\*\*/, user);
    const left = Buffer.from(masked.replace(/\*\*\*.*/, ''), 'base64').toString('latin1');
    t.ok(left.length <= user.length + 2, `${user}: ${left}`);
  }
});

void t.test(
  'every string and number of a structured secret is one, its keys are not',
  async (t) => {
    const secret =
      '{"user": "ada.l", "keys": ["k-11\\"11", {"port" : 54321, "x": -1.50e10}], "on": true, "id": "abc"}';
    t.same(leavesOf(secret), ['ada.l', 'k-11"11', '54321', '-1.50e10', 'abc']);
    const masker = new Masker([secret]);
    t.equal(
      masker.mask('user=ada.l keys=k-11"11 port=54321 x=-1.50e10 on=true id=abc'),
      'user=*** keys=*** port=*** x=*** on=true id=abc',
      'what has less than four characters stands everywhere and is left',
    );
    t.same(leavesOf('not {json'), ['not {json']);
    t.same(leavesOf('12345'), ['12345']);
    t.same(leavesOf('{"a": {"b":[]}, "c":null}'), []);
  },
);

void t.test('the lines of a key are masked one by one', async (t) => {
  const key = '-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASC\n-----END KEY-----\n';
  const masker = new Masker([key]);
  t.equal(masker.mask('> MIIEvQIBADANBgkqhkiG9w0B\n> AQEFAASC\n'), '> ***\n> AQEFAASC\n');
  t.equal(masker.mask(`[${key}]`), '[***]');
});

void t.test('bytes are secrets too', async (t) => {
  const secret = Buffer.from([0, 255, 128, 10, 13, 200]);
  const masker = new Masker([secret]);
  const masked = masker.maskBytes(Buffer.concat([Buffer.from('a'), secret, Buffer.from('b')]));
  t.equal(Buffer.from(masked).toString(), 'a***b');
  t.equal(masker.mask(secret.toString('base64')), '***');
});

void t.test('a stream holds back only what may be the beginning of a secret', async (t) => {
  const masker = new Masker(['hunter2-hunter2']);
  const stream = masker.stream();
  const push = (text: string) => Buffer.from(stream.push(Buffer.from(text))).toString();
  t.equal(push('the password is hun'), 'the password is ');
  t.equal(push('ting'), 'hunting');
  t.equal(push(' hunter2-hun'), ' ');
  t.equal(push('ter2, it is'), '***, it is');
  t.equal(push(' hunter2'), ' ');
  t.equal(Buffer.from(stream.end()).toString(), 'hunter2', 'and gives it at the end');
  t.equal(push('the next one'), 'the next one');
});

void t.test(
  'a secret that becomes known in the middle of a stream is masked from there on',
  async (t) => {
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();
    const before = new Masker(['hunter2-hunter2', 'abcdef', 'efghij']);
    const after = new Masker(['hunter2-hunter2', 'abcdef', 'efghij', 'hunger']);
    const change = (first: string, second: string) => {
      const stream = before.stream();
      const begun = text(stream.push(Buffer.from(first)));
      const next = after.stream(stream);
      return begun + text(next.push(Buffer.from(second))) + text(next.end());
    };
    t.equal(change('it is hun', 'ter2-hunter2.'), 'it is ***.', 'one that had begun before');
    t.equal(
      change('it is hun', 'ger.'),
      'it is ***.',
      'the new one, of which a part was held back',
    );
    t.equal(change('it is hun', 'ting.'), 'it is hunting.', 'what was held back is not lost');
    t.equal(change('abcdefgh', 'ij.'), '***.', 'one that overlaps one that is masked');
    t.equal(change('abcdefgh', '.'), '***gh.');
    const last = after.stream();
    t.equal(text(last.push(Buffer.from('hun'))), '');
    t.equal(text(new Masker([]).stream(last).push(Buffer.from('t'))), 'hunt', 'none is left');
  },
);

randomTest('a stream that goes on with another masker of the same secrets', async (t, random) => {
  for (let round = 0; round < 300; round++) {
    const word = () =>
      Array.from({ length: 4 + random.int(4) }, () => random.pick(['a', 'b'])).join('');
    const secrets = Array.from({ length: 1 + random.int(4) }, word);
    const masker = new Masker(secrets);
    const printed = Buffer.from(
      Array.from({ length: random.int(60) }, () => random.pick(['a', 'b', 'b', 'c'])).join(''),
    );
    let stream = masker.stream();
    const out: Uint8Array[] = [];
    for (let at = 0; at < printed.length; ) {
      const to = at + 1 + random.int(8);
      out.push(stream.push(printed.subarray(at, to)));
      if (random.chance(0.5)) stream = new Masker(secrets).stream(stream);
      at = to;
    }
    out.push(stream.end());
    const shown = Buffer.concat(out).toString();
    if (shown !== masker.mask(printed.toString()))
      t.fail(`${secrets.join()}: ${printed.toString()} -> ${shown}`);
  }
  t.pass('gives what one masker would have given');
});

void t.test('a secret within a longer one is not told apart from it', async (t) => {
  const masker = new Masker(['bcde', 'abcdef']);
  const stream = masker.stream();
  const push = (text: string) => Buffer.from(stream.push(Buffer.from(text))).toString();
  t.equal(push('-abcde'), '-', 'it could still be the longer one');
  t.equal(push('f-'), '***-');
  t.equal(push('abcdexbcde'), 'a***x***');
  t.equal(push('bcde'), '', 'what touches the last is the same mask');
});

void t.test('without secrets nothing is held, copied or changed', async (t) => {
  const masker = new Masker(['"abc"', '123', 'null', '{}']);
  t.ok(masker.isEmpty);
  const chunk = Buffer.from('abc 123 null');
  t.equal(masker.stream().push(chunk), chunk);
  const text = 'some text';
  t.equal(masker.mask(text), text);
});

void t.test('bytes without a secret come out as they went in, UTF-8 or not', async (t) => {
  const masker = new Masker([PASSWORD, 'hunter2']);
  const bytes = Buffer.from([0xff, 0xfe, 0, 0x70, 0x34, 0xc3]);
  const stream = masker.stream();
  t.same(Buffer.concat([stream.push(bytes), stream.end()]), bytes);
});

void t.test('more secrets than can be masked are refused', async (t) => {
  t.throws(
    () => new Masker(['x'.repeat(MASKED_BYTES_MAX), 'more']),
    new BridgeError('too_large', 'secrets of more than 131072 bytes together cannot be masked'),
  );
});

void t.test('a long secret is masked, and little of a stream is held back for it', async (t) => {
  let secret = '';
  for (let i = 0; secret.length < 60_000; i++) secret += `${i}:é/`;
  const masker = new Masker([secret]);
  t.equal(masker.mask(`[${secret}]`), '[***]');
  t.equal(masker.mask(`[${encodeURIComponent(secret)}]`), '[***]');
  t.ok(masker.heldBytesMax < 8192, `${masker.heldBytesMax} bytes`);
});

randomTest(
  'cut anywhere, a stream is masked as a simple search would mask all of it',
  async (t, random) => {
    for (let round = 0; round < 300; round++) {
      const alphabet = random.pick(['ab', 'abc', 'a/+ ö"', 'abcdefgh']);
      const secrets = Array.from({ length: 1 + random.int(5) }, () => word(random, alphabet, 12));
      const masker = new Masker(secrets);
      const forms = formsOf(secrets);
      const parts: Buffer[] = [];
      for (let i = random.int(30); i >= 0; i--) {
        const form = forms.length > 0 && random.chance(0.4) ? random.pick(forms) : undefined;
        const cut = form?.subarray(0, random.chance(0.5) ? form.length : random.int(form.length));
        parts.push(cut ?? Buffer.from(word(random, alphabet, 8)));
      }
      const whole = Buffer.concat(parts);
      const expected = simplyMasked(whole, forms);
      const stream = masker.stream();
      const got: Uint8Array[] = [];
      let held = 0;
      for (let at = 0; at < whole.length; ) {
        const size = random.chance(0.5) ? 1 : 1 + random.int(20);
        const chunk = Uint8Array.from(whole.subarray(at, at + size));
        const out = Uint8Array.from(stream.push(chunk));
        chunk.fill(0); // the stream must not depend on it any more
        got.push(out);
        at += size;
        held = Math.max(held, stream.held);
      }
      got.push(stream.end());
      const masked = Buffer.concat(got).toString('latin1');
      if (masked !== expected) t.equal(masked, expected, JSON.stringify(secrets));
      if (held > masker.heldBytesMax) t.fail(`${held} bytes held back`);
      if (Buffer.from(masker.maskBytes(whole)).toString('latin1') !== expected)
        t.fail('as a whole');
    }
    t.pass();
  },
);

const word = (random: Random, alphabet: string, most: number): string =>
  Array.from({ length: 1 + random.int(most) }, () => random.pick(Array.from(alphabet))).join('');

/** Marks every occurrence of every form, then replaces each run of marks. */
function simplyMasked(whole: Buffer, forms: readonly Buffer[]): string {
  const marked = new Uint8Array(whole.length);
  for (const form of forms)
    for (let at = whole.indexOf(form); at >= 0; at = whole.indexOf(form, at + 1))
      marked.fill(1, at, at + form.length);
  let text = '';
  for (let i = 0; i < whole.length; i++)
    if (marked[i] === 0) text += String.fromCharCode(whole[i] ?? 0);
    else if (i === 0 || marked[i - 1] === 0) text += '***';
  return text;
}
