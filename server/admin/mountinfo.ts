/** One line of proc_pid_mountinfo(5). Reading it touches no mount. */
export interface Mount {
  readonly path: string;
  readonly type: string;
  /** The device's minor number: of a FUSE mount, its directory in /sys/fs/fuse/connections. */
  readonly minor: number;
}

/** In the order they were mounted: of several at one path, the last one is what is seen. */
export function parseMountinfo(text: string): Mount[] {
  return text.split('\n').flatMap((line) => {
    const fields = line.split(' ');
    const [device, path, type] = [fields[2], fields[4], fields[fields.indexOf('-', 6) + 1]];
    if (device === undefined || path === undefined || type === undefined) return [];
    return [{ path: unescaped(path), type, minor: Number(device.split(':')[1]) }];
  });
}

const unescaped = (path: string): string =>
  path.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
