// A legacy script: it knows the cronium helper and files in its directory, nothing else.
const { name } = cronium.input();
const visits = (cronium.getVariable('visits_node') ?? 0) + 1;
console.log(`node: hello ${name}, this is visit ${visits}`);
setTimeout(() => {
  cronium.setVariable('visits_node', visits);
  cronium.output({ language: 'node', visits });
  cronium.setCondition(visits > 1);
}, 300);
