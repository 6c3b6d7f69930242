# a module and a package written and imported: __pycache__ in the run directory
import importlib, os, sys

with open('written.py', 'w') as f:
    f.write('answer = 42\n')
os.mkdir('pack')
open('pack/__init__.py', 'w').write('from .inner import f\n')
open('pack/inner.py', 'w').write('def f(): return __file__\n')
importlib.invalidate_caches()
import written, pack

print(written.answer, pack.f())
print(sorted(n for n in os.listdir('__pycache__') if n.startswith('written')), os.listdir('pack/__pycache__').__len__())
print(os.getcwd() in (sys.path[0], os.path.dirname(os.path.abspath(__file__))), os.path.basename(__file__) == sys.argv[0])
