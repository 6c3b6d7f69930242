// process.env: the contract's variables and the event's own
console.log(Object.keys(process.env).sort().join(' '), process.env.GREETING, process.env.TZ, new Date(0).toString());
cronium.output(process.env.EMPTY);
