// the helper keeps every type, and reads "", 0 and false as null
for (const [key, value] of Object.entries({ text: 'é "q"\n', zero: 0, half: 0.5, no: false, empty: '', none: null, list: [1, [2]], map: { a: { b: 1 } } }))
  console.log(key, cronium.setVariable(key, value), JSON.stringify(cronium.getVariable(key)));
console.log(cronium.getCondition(), cronium.setCondition(''), cronium.getCondition(), global.cronium === cronium);
cronium.output(cronium.event().name);
