import { isIPv4 } from 'node:net';
import { z } from 'zod';

/** Each takes a rule of the packet filter and a line of /etc/hosts; a longer list is none that anybody has checked. */
export const EGRESS_TARGETS_MAX = 64;

const PORT_MAX = 65_535;
const PORT = `a port is a whole number from 1 to ${PORT_MAX}`;

/** RFC 1123 section 2.1, and "_", which names of services have. The last label holds a letter: "127.1" is an address. */
const NAME =
  /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?=[^.]*[a-z])[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i;

const NUMBERS = /^(?:0x[\da-f]*|\d+)(?:\.(?:0x[\da-f]*|\d+))*$/i;

/** What is wrong with it; undefined: it is a name or an IPv4 address. */
function problemOf(host: string): string | undefined {
  if (isIPv4(host)) return undefined;
  if (/[:[\]]/.test(host))
    return 'IPv6 cannot be allowed: give a name or an IPv4 address, then a port';
  if (host.includes('*')) return 'a wildcard cannot be allowed: name every host';
  if (host.includes('/')) return 'a range of addresses cannot be allowed: name every host';
  // getaddrinfo(3) takes the last for an address, too.
  if (NUMBERS.test(host)) return 'an IPv4 address has four numbers from 0 to 255, as 192.0.2.1';
  return NAME.test(host) ? undefined : 'a host is a name or an IPv4 address';
}

/** One destination of TCP connections. */
export const EgressTarget = z.strictObject({
  host: z.string().superRefine((host, context) => {
    const problem = problemOf(host);
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem });
  }),
  port: z.int(PORT).min(1, PORT).max(PORT_MAX, PORT),
});
export type EgressTarget = z.infer<typeof EgressTarget>;

/** All that a script may connect to. */
export const EgressTargets = z
  .array(EgressTarget)
  .min(1, 'name at least one host and port')
  .max(EGRESS_TARGETS_MAX, `at most ${EGRESS_TARGETS_MAX} hosts and ports can be allowed`);
