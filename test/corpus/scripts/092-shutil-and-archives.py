# shutil, zipfile, tarfile and gzip on scratch files and the special names
import gzip, os, shutil, tarfile, zipfile

shutil.copy2('variables.json', 'saved.json')
os.makedirs('tree/a/b')
shutil.move('saved.json', 'tree/a/b/saved.json')
shutil.copytree('tree', 'copy')
with tarfile.open('t.tar.gz', 'w:gz') as t:
    t.add('copy')
with zipfile.ZipFile('z.zip', 'w', zipfile.ZIP_DEFLATED) as z:
    z.write('input.json')
    print(z.read('input.json'))
with tarfile.open('t.tar.gz') as t:
    print(t.extractfile('copy/a/b/saved.json').read())
with gzip.open('g.gz', 'wb') as g:
    g.write(b'["gz"]')
with gzip.open('g.gz') as g, open('output.json', 'wb') as out:
    shutil.copyfileobj(g, out)
shutil.rmtree('tree')
shutil.rmtree('copy')
print(shutil.disk_usage('.').total > 0, sorted(os.listdir('.'))[-3:])
