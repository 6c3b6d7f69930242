// Mutual TLS and nothing else: every byte comes back. What a get over such a connection cannot be faster than.
import { createServer } from 'node:tls';
import { type CertificatePaths, tlsFiles } from '../lib/our-client.js';

const { certificate, socketPath } = JSON.parse(process.argv[2] ?? '') as {
  certificate: CertificatePaths;
  socketPath: string;
};
const { ca, cert, key } = tlsFiles(certificate);
const server = () =>
  createServer(
    { ca, cert, key, requestCert: true, minVersion: 'TLSv1.3', noDelay: true },
    (socket) => {
      socket.on('error', () => {}); // the client went
      socket.on('data', (bytes) => socket.write(bytes));
    },
  );
const tcp = server();
const unix = server();
process.once('SIGTERM', () => process.exit(0));
unix.listen(socketPath, () =>
  tcp.listen(0, '127.0.0.1', () => {
    const address = tcp.address();
    if (typeof address === 'object') process.send?.({ port: address?.port });
  }),
);
