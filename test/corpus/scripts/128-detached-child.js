// a detached child that inherits stdout goes on after its parent, and what it stores counts
require('child_process')
  .spawn('sh', ['-c', `sleep 0.4; jq '.late = 1' variables.json > t; mv t variables.json; echo late`], { stdio: 'inherit', detached: true })
  .unref();
process.on('exit', () => console.log('parent'));
process.exitCode = 2;
