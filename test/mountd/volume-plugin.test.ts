import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { VolumePlugin, type Volumes } from '#mountd/volume-plugin.js';

const ID = 'f049076f-dfa5-4027-876f-71b532282686';

/** One execution, for one container at a time. */
class FakeVolumes implements Volumes {
  names: string[] = [ID];
  mountId: string | undefined;

  pathOf(name: string): string | undefined {
    return this.names.includes(name) ? `/mnt/${name}` : undefined;
  }

  async mount(_name: string, mountId: string): Promise<void> {
    if (this.mountId !== undefined && this.mountId !== mountId)
      throw new BridgeError('busy', 'it is mounted in another container');
    this.mountId = mountId;
  }

  unmount(_name: string, mountId: string): void {
    if (this.mountId === mountId) this.mountId = undefined;
  }
}

/** As dockerd calls it; `text` instead of JSON, when given. */
async function call(socketPath: string, path: string, body: object = {}, text?: string) {
  return await new Promise<{ status: number | undefined; type: string | undefined; body: unknown }>(
    (resolve, reject) => {
      const calling = request({ socketPath, path, method: 'POST' }, (response) => {
        const { statusCode: status, headers } = response;
        json(response).then(
          (body) => resolve({ status, type: headers['content-type'], body }),
          reject,
        );
      });
      calling.once('error', reject);
      calling.end(text ?? JSON.stringify(body));
    },
  );
}

void t.test('the plugin speaks as Docker expects', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-plugin-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'plugins/cronium.sock');
  const volumes = new FakeVolumes();
  await using _plugin = await VolumePlugin.open(path, 'cronium', volumes);
  const driver = async (method: string, body: object = {}) => {
    const answer = await call(path, `/VolumeDriver.${method}`, body);
    return [answer.status, answer.body];
  };
  const Mountpoint = `/mnt/${ID}`;

  await t.test('what it is, and for whom', async (t) => {
    t.equal(statSync(path).mode & 0o777, 0o600);
    t.same(await call(path, '/Plugin.Activate', {}, ''), {
      status: 200,
      type: 'application/vnd.docker.plugins.v1.1+json',
      body: { Implements: ['VolumeDriver'] },
    });
    t.same(await driver('Capabilities'), [200, { Capabilities: { Scope: 'local' } }]);
  });

  await t.test('a volume is an execution that was prepared', async (t) => {
    t.same(await driver('Create', { Name: ID, Opts: null }), [200, {}]);
    t.same(await driver('Create', { Name: ID }), [200, {}], 'again');
    t.same(await driver('Get', { Name: ID }), [
      200,
      { Volume: { Name: ID, Mountpoint, Status: {} } },
    ]);
    t.same(await driver('Path', { Name: ID }), [200, { Mountpoint }]);
    t.same(await driver('List'), [200, { Volumes: [{ Name: ID, Mountpoint }] }]);
    for (const method of ['Create', 'Get', 'Path', 'Mount'])
      t.match(
        await driver(method, { Name: 'other', ID: 'm' }),
        [500, { Err: /no execution other is prepared here.*cronium exec create/ }],
        method,
      );
    t.match(await driver('Create', { Name: ID, Opts: { size: '1g' } }), [
      500,
      { Err: /no volume option size.*cronium exec create/ },
    ]);
  });

  await t.test('a mount is known by its id', async (t) => {
    t.same(await driver('Mount', { Name: ID, ID: 'one' }), [200, { Mountpoint }]);
    t.same(await driver('Mount', { Name: ID, ID: 'one' }), [200, { Mountpoint }], 'asked again');
    t.match(await driver('Mount', { Name: ID, ID: 'two' }), [500, { Err: /another container/ }]);
    t.same(await driver('Unmount', { Name: ID, ID: 'two' }), [200, {}], 'it was none');
    t.equal(volumes.mountId, 'one');
    t.same(await driver('Unmount', { Name: ID, ID: 'one' }), [200, {}]);
    t.same(await driver('Mount', { Name: ID, ID: 'two' }), [200, { Mountpoint }]);
    volumes.names = [];
    t.same(await driver('Unmount', { Name: ID, ID: 'two' }), [200, {}], 'after its end');
    t.same(await driver('List'), [200, { Volumes: [] }]);
    t.same(await driver('Remove', { Name: ID }), [200, {}], 'it is none any more');
  });

  await t.test('what is no call is refused', async (t) => {
    t.match(await call(path, '/VolumeDriver.Explode'), { status: 404, body: { Err: /no method/ } });
    const Err = 'this is no call of the plugin protocol';
    t.match(await call(path, '/VolumeDriver.Get', {}, '{'), { status: 500, body: { Err } });
    t.match(await call(path, '/VolumeDriver.Get', {}), { status: 500, body: { Err } });
    const large = 'x'.repeat(100_000);
    t.match(await call(path, '/VolumeDriver.Get', { Name: large }), {
      status: 500,
      body: { Err: /at most 65536 bytes/ },
    });
  });
});

void t.test('a name is for one; what nobody answers on is replaced', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'cronium-plugin-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'cronium.sock');
  writeFileSync(path, 'left by a machine that stopped');
  {
    await using _first = await VolumePlugin.open(path, 'cronium', new FakeVolumes());
    const second = VolumePlugin.open(path, 'cronium', new FakeVolumes());
    await t.rejects(second, { code: 'busy', message: /volume driver cronium: choose another/ });
    t.equal((await call(path, '/VolumeDriver.List')).status, 200, 'the first one goes on');
  }
  t.notOk(existsSync(path), 'removed at the end');
});
