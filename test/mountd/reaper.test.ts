import { pino } from 'pino';
import t from 'tap';
import { BridgeError } from '#bridge/wire/errors.js';
import { Reaper } from '#mountd/reaper.js';
import { eventually } from '#test/support/installation.js';

/** Docker with containers of some executions. */
class FakeContainers {
  present = ['running', 'left'];
  isAway = false;
  asked = 0;
  onLeft: () => void = () => {};

  async reap(runs: (executionId: string) => boolean): Promise<number> {
    this.asked++;
    if (this.isAway) throw new BridgeError('unavailable', 'no Docker engine answers');
    const before = this.present.length;
    this.present = this.present.filter(runs);
    return before - this.present.length;
  }
}

const log = pino({ level: 'silent' });
const NEVER = 60_000;

void t.test('what does not run is removed, at once and when Docker is back', async (t) => {
  const docker = new FakeContainers();
  using reaper = new Reaper([docker], (id) => id === 'running', log, {
    everyMs: NEVER,
    retryMs: 5,
  });
  await reaper.first;
  t.same(docker.present, ['running'], 'what runs stays');

  docker.isAway = true;
  docker.present.push('cut off');
  docker.onLeft(); // its run could not remove it
  await eventually('Docker is asked again', () => docker.asked > 3);
  docker.isAway = false;
  await eventually('it is removed', () => docker.present.length === 1);
  t.same(docker.present, ['running']);
  const { asked } = docker;
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.ok(docker.asked - asked <= 1, 'then Docker is left alone');
});

void t.test(
  'Docker that is away at the start keeps nobody waiting for more than its answer',
  async (t) => {
    const docker = new FakeContainers();
    docker.isAway = true;
    using reaper = new Reaper([docker], () => false, log, { everyMs: NEVER, retryMs: 5 });
    await reaper.first;
    t.equal(docker.asked, 1);
    docker.isAway = false;
    await eventually('all are removed', () => docker.present.length === 0);
  },
);
