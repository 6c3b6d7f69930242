// --compat exact: every value must be a string, or nothing is stored
cronium.setVariable('text', 'new');
cronium.setVariable('number', 1);
