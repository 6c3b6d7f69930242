// an HTTP server on a unix socket in the run directory
const http = require('http');
const fs = require('fs');

const server = http.createServer((_, response) => response.end(fs.readFileSync('variables.json')));
server.listen('web.sock', () => {
  http.get({ socketPath: 'web.sock', path: '/' }, (response) => {
    let body = '';
    response.on('data', (chunk) => (body += chunk));
    response.on('end', () => {
      console.log(response.statusCode, body);
      fs.writeFileSync('output.json', body);
      server.close(() => console.log(fs.existsSync('web.sock')));
    });
  });
});
