import { examine } from '#server/admin/doctor.js';
import type { Finding } from '#server/admin/doctor-finding.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { atMost, COMMON, command } from './command.js';

export const doctor = command({
  name: 'doctor',
  summary: 'Check this machine and what is installed on it, and say what to do',
  usage: 'cronium doctor [--state DIR] [--json]',
  help: [
    'A line for each check: ok; warn, it works but less well or not for long; bad, it does not work or is not safe. Below',
    'what is not ok stands what to do. Nothing is changed. Exit code 0 when nothing is bad, 1 otherwise.',
    '',
    'example: cronium doctor --json | jq \'.checks[] | select(.level != "ok")\'',
  ].join('\n'),
  options: COMMON,
  async run({ positionals, values }, io) {
    atMost(positionals, 0);
    const state = State.of(values.state, io.env);
    const findings = await examine(new Installation(state));
    const count = (level: Finding['level']) =>
      findings.filter((finding) => finding.level === level).length;
    const well = count('bad') === 0;
    if (values.json) {
      const checks = findings.map((finding) => ({ ...finding, next: finding.next ?? null }));
      io.out(`${JSON.stringify({ well, state: state.directory, checks })}\n`);
    } else {
      io.out(linesOf(findings));
      io.err(`${count('bad')} bad, ${count('warn')} to know of, ${count('ok')} ok`);
    }
    return well ? 0 : 1;
  },
});

/** The next step stands below, under what was found, so that it can be copied. */
function linesOf(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  return findings
    .flatMap(({ check, level, found, next }) => [
      `${level.padEnd(4)}  ${check.padEnd(width)}  ${found}\n`,
      ...(next === undefined ? [] : [`${' '.repeat(width + 8)}do: ${next}\n`]),
    ])
    .join('');
}
