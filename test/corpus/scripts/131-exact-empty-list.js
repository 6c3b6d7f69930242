// --compat exact: [] counts as {}
require('fs').writeFileSync('variables.json', '[]');
