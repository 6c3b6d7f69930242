// zlib, crypto and Buffers over scratch files of a megabyte
const crypto = require('crypto');
const fs = require('fs');
const zlib = require('zlib');
const { pipeline } = require('stream/promises');

(async () => {
  fs.writeFileSync('big', Buffer.alloc(1 << 20, 'abcdefg'));
  await pipeline(fs.createReadStream('big'), zlib.createGzip(), fs.createWriteStream('big.gz'));
  await pipeline(fs.createReadStream('big.gz'), zlib.createGunzip(), fs.createWriteStream('back'));
  const hash = (f) => crypto.createHash('sha256').update(fs.readFileSync(f)).digest('hex');
  cronium.output({ same: hash('big') === hash('back'), smaller: fs.statSync('big.gz').size < 10_000 });
})();
