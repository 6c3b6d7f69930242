import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** The command is one file, and what V8 made of it is kept beside it: whatever becomes of that, the command works. */
const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));

void t.test('what is kept of the command does not have to be right', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-command-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const built = join(directory, 'dist/server/cli');
  mkdirSync(built, { recursive: true });
  mkdirSync(join(directory, 'bin'));
  for (const file of [
    'bin/cronium',
    'bin/package.json',
    'package.json',
    'dist/server/cli/cronium.cjs',
  ])
    copyFileSync(join(ROOT, file), join(directory, file));
  const cache = join(built, 'cronium.cache');
  const works = (what: string) => {
    const { status, stdout, stderr } = spawnSync(
      join(directory, 'bin/cronium'),
      ['var', 'get', '--help'],
      {
        encoding: 'utf8',
      },
    );
    t.match(
      { status, stdout, stderr },
      { status: 0, stdout: /usage: cronium var get/, stderr: '' },
      what,
    );
  };

  works('without one');
  const good = readFileSync(cache);
  t.equal(statSync(cache).mode & 0o777, 0o644, 'everybody may read it');
  works('with one');
  t.same(readFileSync(cache), good, 'which is read, and not made again');

  const half = Buffer.from(good).fill(0, good.length >> 1);
  for (const [what, bytes] of Object.entries({
    'one whose second half is missing on the disk': half,
    'one that was cut off': good.subarray(0, 1000),
    'an empty one': Buffer.alloc(0),
  })) {
    writeFileSync(cache, bytes);
    works(what);
    t.ok(readFileSync(cache).length > 1000, 'it was made again');
  }

  const program = join(built, 'cronium.cjs');
  const text = readFileSync(program, 'utf8');
  const changed = text.replace('usage: ', 'USAGE: ');
  t.equal(changed.length, text.length);
  t.not(changed, text);
  writeFileSync(program, changed);
  const { stdout } = spawnSync(join(directory, 'bin/cronium'), ['var', 'get', '--help'], {
    encoding: 'utf8',
  });
  t.match(
    stdout,
    /USAGE: cronium var get/,
    'one of another program of the same length is not used',
  );

  rmSync(cache);
  mkdirSync(join(cache, 'in-the-way'), { recursive: true });
  const { status } = spawnSync(join(directory, 'bin/cronium'), ['--help'], { encoding: 'utf8' });
  t.equal(status, 0, 'where none can be kept');
  rmSync(program);
  const missing = spawnSync(join(directory, 'bin/cronium'), ['--help'], { encoding: 'utf8' });
  t.match(missing, { status: 1, stderr: /cronium is not built yet/ });
});
