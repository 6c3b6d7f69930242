# pickle, dbm.dumb, csv and logging, all to files in the run directory
import csv, dbm.dumb, json, logging, pickle

logging.basicConfig(filename='run.log', format='%(levelname)s %(message)s', level=logging.INFO)
with open('rows.csv', 'w', newline='') as f:
    csv.writer(f).writerows([['a', 'b'], ['1', 'x, "y"']])
logging.info('%d bytes', open('rows.csv').seek(0, 2))
with dbm.dumb.open('kept') as db:
    db['row'] = pickle.dumps(list(csv.DictReader(open('rows.csv'))))
with dbm.dumb.open('kept') as db:
    json.dump(pickle.loads(db['row']), open('output.json', 'w'))
logging.shutdown()
print(open('run.log').read(), end='')
