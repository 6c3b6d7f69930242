import t from 'tap';
import { Metrics } from '#server/metrics.js';

const lines = async (metrics: Metrics) => (await metrics.scrape()).text.split('\n');

void t.test('calls are counted by operation and outcome, in buckets of seconds', async (t) => {
  const metrics = new Metrics(() => ({ connections: 0, channels: 0, storeVersion: 0 }));
  for (const seconds of [0.00005, 0.0002, 0.2, 20]) metrics.observe('variable.get', 'ok', seconds);
  metrics.observe('variable.get', 'not_found', 0.001);
  const text = await lines(metrics);
  for (const line of [
    'cronium_call_seconds_bucket{le="0.0001",op="variable.get",outcome="ok"} 1',
    'cronium_call_seconds_bucket{le="0.00025",op="variable.get",outcome="ok"} 2',
    'cronium_call_seconds_bucket{le="0.25",op="variable.get",outcome="ok"} 3',
    'cronium_call_seconds_bucket{le="10",op="variable.get",outcome="ok"} 3',
    'cronium_call_seconds_bucket{le="+Inf",op="variable.get",outcome="ok"} 4',
    'cronium_call_seconds_count{op="variable.get",outcome="not_found"} 1',
  ])
    t.ok(text.includes(line), line);
});

void t.test('levels are as of the scrape, caches count hits and misses', async (t) => {
  const levels = { connections: 1, channels: 2, storeVersion: 3 };
  const metrics = new Metrics(() => levels);
  await metrics.scrape();
  levels.channels = 7;
  for (const hit of [true, true, false]) metrics.looked('variables', hit);
  const text = await lines(metrics);
  for (const line of [
    'cronium_connections 1',
    'cronium_channels 7',
    'cronium_store_version 3',
    'cronium_cache_hits_total{cache="variables"} 2',
    'cronium_cache_misses_total{cache="variables"} 1',
  ])
    t.ok(text.includes(line), line);
  t.ok(text.some((line) => line.startsWith('nodejs_eventloop_lag_seconds ')));
});

void t.test('two servers in one process count apart', async (t) => {
  const [one, two] = [0, 1].map(
    (connections) => new Metrics(() => ({ connections, channels: 0, storeVersion: 0 })),
  );
  one?.looked('variables', true);
  t.notMatch(await two?.scrape(), { text: /cache_hits_total\{/ });
});
