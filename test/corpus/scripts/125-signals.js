// a SIGTERM that is handled, then one that is not
process.once('SIGTERM', () => {
  cronium.output('handled');
  process.kill(process.pid, 'SIGTERM');
});
setInterval(() => {}, 1000);
process.kill(process.pid, 'SIGTERM');
