# sqlite3 in WAL mode, with two processes: shared memory in the run directory
import json, os, sqlite3, subprocess, sys

db = sqlite3.connect('w.db', timeout=10)
print(db.execute('pragma journal_mode=wal').fetchone()[0])
db.execute('create table t (v int)')
db.commit()
child = "import sqlite3; d = sqlite3.connect('w.db', timeout=10)\nfor i in range(20):\n  with d: d.execute('insert into t values (1)')"
children = [subprocess.Popen([sys.executable, '-c', child]) for _ in range(2)]
for _ in range(20):
    with db:
        db.execute('insert into t values (1)')
codes = [c.wait() for c in children]
json.dump({'codes': codes, 'sum': db.execute('select sum(v) from t').fetchone()[0]}, open('output.json', 'w'))
db.close()
