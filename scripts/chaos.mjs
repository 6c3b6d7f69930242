// `npm run chaos -- --minutes N --seed S`: containers at work while the server is killed, stopped and cut off, by chance; then
// the account of what was promised and what is there. test/chaos has the parts.
import { spawn } from 'node:child_process';

const program = ['--enable-source-maps', 'dist/test/chaos/main.js', ...process.argv.slice(2)];
const child = spawn(process.execPath, program, { stdio: 'inherit' });
// It cleans up first: a terminal's Ctrl-C reaches it as well.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.on('exit', (code) => process.exit(code ?? 1));
