# sqlite3 with its journal in the run directory
import json, os, sqlite3

with sqlite3.connect('data.db') as db:
    db.execute('create table t (k text primary key, v int)')
    db.executemany('insert into t values (?, ?)', [(f'k{i}', i) for i in range(200)])
try:
    with sqlite3.connect('data.db') as db:
        db.execute('delete from t')
        raise RuntimeError('rolled back')
except RuntimeError as error:
    print(error)
wal = sqlite3.connect('data.db')
total, = wal.execute('select sum(v) from t').fetchone()
wal.close()
json.dump({'total': total, 'files': sorted(f for f in os.listdir('.') if 'data' in f)}, open('output.json', 'w'))
