import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { promisify } from 'node:util';
import Docker from 'dockerode';
import { bridgeOf } from '#mountd/egress-filter.js';

const run = promisify(execFile);

/** What these executions, and an installation, have on this machine: rules of the packet filter, interfaces and Docker's networks. */
export async function networkTraces(
  instance: string,
  executionIds: readonly string[],
): Promise<string[]> {
  const marks = [`cronium:${instance}:`, ...executionIds.map(bridgeOf)];
  const rules = await Promise.all(
    ['iptables-save', 'ip6tables-save'].map(async (program) => (await run(program)).stdout),
  );
  const networks = await new Docker({ socketPath: '/var/run/docker.sock' }).listNetworks({
    filters: { label: [`cronium.instance=${instance}`] },
  });
  const interfaces = readdirSync('/sys/class/net');
  return [
    ...rules.join('').split('\n'),
    ...interfaces,
    ...networks.map(({ Name }) => `${marks[0]} ${Name}`),
  ].filter((line) => marks.some((mark) => line.includes(mark)));
}
