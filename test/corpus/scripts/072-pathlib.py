# pathlib: read_text, write_text, rename, glob, touch, unlink, stat
import json
from pathlib import Path

here = Path('.')
print(sorted(p.name for p in here.glob('*.json')))
Path('next.json').write_text(json.dumps({**json.loads(Path('variables.json').read_text()), 'b': 2}))
Path('next.json').replace('variables.json')
out = Path('output.json')
out.touch()
print(out.stat().st_size, out.exists(), Path('condition.json').exists())
out.unlink()
Path('later.json').write_text('["moved"]')
Path('later.json').rename('output.json')
print(Path('output.json').resolve())
