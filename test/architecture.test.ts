import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** Who may import whom, in the order a request travels. ARCHITECTURE.md shows the same table. */
// biome-ignore format: a table
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  'bridge/fuse':     ['bridge/vfs', 'bridge/client', 'bridge/wire'],
  'bridge/vfs':      ['bridge/client', 'bridge/wire'],
  'bridge/client':   ['bridge/wire'],
  'bridge/wire':     [],
  'mountd':          ['bridge/fuse', 'bridge/vfs', 'bridge/client', 'bridge/wire'],
  'server/cli':      ['server/admin', 'bridge/client', 'bridge/wire'],
  'server/admin':    ['server/auth', 'server/store', 'server/config', 'bridge/client', 'bridge/wire'],
  'server/supervisor': ['server/admin', 'server/store', 'server/config', 'bridge/wire'],
  'server/metrics':  [],
  'server/listen':   ['server/session', 'server/auth', 'bridge/wire'],
  'server/session':  ['server/services', 'server/auth', 'bridge/wire'],
  'server/services': ['server/store', 'bridge/wire'],
  'server/auth':     ['server/store', 'bridge/wire'],
  'server/store':    ['bridge/wire'],
};

/** Files that compose: they may import everything below them in their own program. */
const COMPOSERS = ['server/main.ts', 'server/runtime.ts', 'mountd/main.ts'];

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');

const sources = ['bridge', 'mountd', 'server'].flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `${folder}/${file}`),
);

/** `bridge/wire`, `mountd`, or for a file directly in server/ its own name without the extension. */
function layerOf(path: string): string {
  const [top = '', second = ''] = path.split('/');
  return top === 'mountd' ? top : `${top}/${second.replace(/\.(ts|js)$/, '')}`;
}

function importsOf(file: string): string[] {
  const source = readFileSync(join(root, file), 'utf8');
  return [...source.matchAll(/from '([.#][^']+)'/g)].map(([, path = '']) =>
    path.startsWith('#') ? path.slice(1) : normalize(join(dirname(file), path)),
  );
}

void t.test('imports point downward', async (t) => {
  t.ok(sources.length > 40, 'the sources were found');
  for (const [layer, allowed] of Object.entries(MAY_IMPORT)) {
    const files = sources.filter((file) => layerOf(file) === layer && !COMPOSERS.includes(file));
    t.ok(files.length > 0, `${layer} exists`);
    const wrong = files.flatMap((file) =>
      importsOf(file)
        .filter((path) => layerOf(path) !== layer && !allowed.includes(layerOf(path)))
        .map((path) => `${file} imports ${path}`),
    );
    t.same(wrong, [], `${layer} imports ${allowed.join(', ') || 'nothing of ours'}`);
  }
});

void t.test('every source belongs to a layer of the table, or composes', async (t) => {
  const known = (file: string) =>
    layerOf(file) in MAY_IMPORT || COMPOSERS.includes(file) || file === 'server/config.ts';
  t.same(
    sources.filter((file) => !known(file)),
    [],
  );
});

void t.test(
  'nothing outside server/ and mountd/ reads the configuration or the environment',
  async (t) => {
    const wrong = sources.filter(
      (file) =>
        file.startsWith('bridge/') &&
        /process\.(env|argv)/.test(readFileSync(join(root, file), 'utf8')),
    );
    t.same(wrong, []);
  },
);

void t.test('ARCHITECTURE.md shows the same table', async (t) => {
  const text = readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8');
  for (const [layer, allowed] of Object.entries(MAY_IMPORT)) {
    const row = text.split('\n').find((line) => line.startsWith(`| \`${layer}\` |`)) ?? '';
    const column = row.split('|')[2] ?? '';
    t.same(
      [...column.matchAll(/`([^`]+)`/g)].map(([, name]) => name),
      allowed,
      layer,
    );
  }
  t.ok(statSync(join(root, 'README.md')).isFile());
});
