import t from 'tap';
import { type Namespace, VariableKey } from '#bridge/wire/names.js';
import { assertMaskable, SECRET_BYTES_MAX, Secrets } from '#server/services/secrets.js';

const ADA: Namespace = { user: 'ada' };
const key = (name: string) => VariableKey.parse(name);

void t.test('what passed through the server is masked until it is deleted', async (t) => {
  const secrets = new Secrets();
  secrets.note(ADA, key('token'), '{"id": "tok-1234"}');
  secrets.note({ org: 'acme' }, key('token'), '"acme-5678"');
  t.equal(secrets.masker.mask('tok-1234 acme-5678'), '*** ***');
  t.equal(secrets.masker, secrets.masker, 'it is made once');
  secrets.note(ADA, key('token'), '"tok-9999"');
  t.equal(secrets.masker.mask('tok-1234 tok-9999'), 'tok-1234 ***');
  secrets.note(ADA, key('token'), null);
  secrets.forget({ org: 'acme' });
  t.ok(secrets.masker.isEmpty);
});

void t.test('of more secrets than can be kept, those used last are masked', async (t) => {
  const secrets = new Secrets();
  const text = (n: number) => JSON.stringify(`${n}-`.repeat(5_000));
  for (let n = 100; n < 120; n++) {
    secrets.note(ADA, key(`k${n}`), text(n));
    secrets.note(ADA, key('often'), '"used-again"');
  }
  const { masker } = secrets;
  t.equal(masker.mask(text(119)), '"***"');
  t.equal(masker.mask(text(100)), text(100));
  t.equal(masker.mask('used-again'), '***');
});

void t.test('what is too long to be masked cannot be a secret', async (t) => {
  const long = JSON.stringify('x'.repeat(SECRET_BYTES_MAX));
  t.throws(() => assertMaskable(long), { code: 'too_large' });
  t.throws(() => new Secrets().note(ADA, key('k'), long), { code: 'too_large' });
});
