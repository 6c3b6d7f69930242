// `npm run chaos -- --minutes N --seed S`: containers at work while server, mountd and the link between them are killed, stopped and
// cut off, by chance; then the account of what was promised and what is there. `npm run soak -- --minutes N`: the same work in
// peace, while memory and files are watched. test/chaos has the parts.
import { spawn } from 'node:child_process';

const [name, ...options] = process.argv.slice(2);
const program = ['--enable-source-maps', `dist/test/chaos/${name}.js`, ...options];
const child = spawn(process.execPath, program, { stdio: 'inherit' });
// It cleans up first: a terminal's Ctrl-C reaches it as well.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.on('exit', (code) => process.exit(code ?? 1));
