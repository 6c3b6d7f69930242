# the helper keeps every type; module functions and the instance are the same
import json

cronium.setVariable('text', 'é "q" \\')
cronium.setVariable('number', 41)
cronium.setVariable('float', 2.0)
cronium.setVariable('yes', True)
cronium.setVariable('none', None)
cronium.cronium.setVariable('list', [1, 'two', {}])
cronium.setVariable('empty', '')
print(json.dumps([cronium.getVariable(k) for k in ('text', 'number', 'float', 'yes', 'none', 'list', 'empty', 'nope')]))
print(cronium.setCondition([]), cronium.cronium.getCondition())
cronium.output(cronium.input())
