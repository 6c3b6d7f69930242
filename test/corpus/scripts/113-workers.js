// worker threads write scratch files, the main thread collects them
const { Worker, isMainThread, workerData } = require('worker_threads');
const fs = require('fs');

if (isMainThread) {
  const done = [0, 1, 2].map((n) => new Promise((resolve) => new Worker(__filename, { workerData: n }).on('exit', resolve)));
  Promise.all(done).then((codes) => {
    const parts = fs.readdirSync('.').filter((f) => f.startsWith('part')).sort();
    cronium.output({ codes, parts: parts.map((f) => JSON.parse(fs.readFileSync(f))) });
  });
} else fs.writeFileSync(`part${workerData}`, String(workerData * 10));
