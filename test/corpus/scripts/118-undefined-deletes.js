// undefined as a value leaves the key out, which deletes it
console.log(cronium.setVariable('old', undefined), cronium.getVariable('old'));
