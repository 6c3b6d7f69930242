import { EgressTarget, EgressTargets } from '#bridge/wire/egress.js';
import { Misuse } from './command.js';

/** What `--egress HOST:PORT[,HOST:PORT...]`, given as often as one likes, allows; each destination once. */
export function egressOf(lists: readonly string[]): EgressTarget[] {
  const targets = new Map<string, EgressTarget>();
  for (const text of lists.flatMap((list) => list.split(','))) {
    const target = targetOf(text.trim());
    targets.set(`${target.host}:${target.port}`, target);
  }
  const all = EgressTargets.safeParse([...targets.values()]);
  if (!all.success) throw new Misuse(`--egress: ${all.error.issues[0]?.message}`);
  return all.data;
}

function targetOf(text: string): EgressTarget {
  const what = `--egress ${JSON.stringify(text)}`;
  if (text.includes('://'))
    throw new Misuse(`${what}: leave out the scheme and the path: write example.org:443`);
  const at = text.lastIndexOf(':');
  if (at < 1) throw new Misuse(`${what}: write HOST:PORT, as example.org:443`);
  const [host, port] = [text.slice(0, at).toLowerCase(), text.slice(at + 1)];
  const target = EgressTarget.safeParse({ host, port: /^\d+$/.test(port) ? Number(port) : -1 });
  if (!target.success) throw new Misuse(`${what}: ${target.error.issues[0]?.message}`);
  return target.data;
}
