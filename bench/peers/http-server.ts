// The usual design: fastify, JSON, a token verified with every request, on the same store as our server.
import { createPublicKey } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { fastify } from 'fastify';
import { jwtVerify } from 'jose';
import { packRecord, unpackRecord } from '#server/services/record.js';
import type { Key } from '#server/store/store.js';
import { AUDIENCE, type HttpServerConfig, ISSUER } from '../lib/http-peer.js';
import { openSameStore } from '../lib/same-store.js';

interface Stored {
  readonly key: string;
  readonly text: string;
  readonly updatedAt: number;
}
interface ByKey {
  readonly Params: { readonly key: string };
}
interface Put extends ByKey {
  readonly Body: { readonly text: string };
}

declare module 'fastify' {
  interface FastifyRequest {
    namespace: string;
  }
}

const config = JSON.parse(process.argv[2] ?? '') as HttpServerConfig;
const store = await openSameStore(config.directory);
const publicKey = createPublicKey(config.publicKey);
const app = fastify({ logger: false });
const keyOf = (namespace: string, key: string): Key => ['var', namespace, key];

app.decorateRequest('namespace', '');
app.addHook('onRequest', async (request, reply) => {
  const token = request.headers.authorization?.replace(/^Bearer /, '') ?? '';
  try {
    const { payload } = await jwtVerify(token, publicKey, {
      algorithms: ['EdDSA'],
      issuer: ISSUER,
      audience: AUDIENCE,
    });
    request.namespace = String(payload['ns']);
  } catch {
    return await reply.code(401).send({ error: 'denied' });
  }
  return undefined;
});

// Schemas: fastify's fast way to write JSON, and its check of what comes in.
const text = { type: 'string', maxLength: 65_536 } as const;
const variable = {
  type: 'object',
  properties: {
    key: { type: 'string' },
    text,
    version: { type: 'integer' },
    updatedAt: { type: 'integer' },
  },
} as const;
const body = {
  type: 'object',
  properties: { text },
  required: ['text'],
  additionalProperties: false,
} as const;
const written = { type: 'object', properties: { version: { type: 'integer' } } } as const;

app.get<ByKey>(
  '/variables/:key',
  { schema: { response: { 200: variable } } },
  async (request, reply) => {
    const entry = await store.get(keyOf(request.namespace, request.params.key));
    if (entry === undefined) return await reply.code(404).send({ error: 'not_found' });
    return { ...unpackRecord<Stored>(entry.value), version: entry.version };
  },
);

app.put<Put>(
  '/variables/:key',
  { schema: { body, response: { 200: written } } },
  async (request, reply) => {
    const { key } = request.params;
    try {
      JSON.parse(request.body.text);
    } catch {
      return await reply.code(400).send({ error: 'invalid' });
    }
    const record = { key, text: request.body.text, updatedAt: Date.now() };
    const committed = await store.commit({
      ops: [{ put: keyOf(request.namespace, key), value: packRecord(record) }],
    });
    return { version: committed.ok ? committed.version : 0 };
  },
);

async function stop(): Promise<void> {
  await app.close();
  await store[Symbol.asyncDispose]();
  process.exit(0);
}
process.once('SIGTERM', () => void stop());

await app.listen({ host: '127.0.0.1', port: 0 });
const { port } = app.server.address() as AddressInfo;
process.send?.({ port });
