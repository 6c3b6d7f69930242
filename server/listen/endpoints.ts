import type { IncomingMessage, ServerResponse } from 'node:http';
import { asBridgeError, type BridgeError } from '#bridge/wire/errors.js';
import type { Identity } from '#server/auth/identity.js';

/** What the server says of itself to anybody; `draining` the listener knows by itself. */
export type Health = 'ok' | 'read-only' | 'draining';

export interface MetricsText {
  readonly contentType: string;
  readonly text: string;
}

export interface Endpoints {
  readonly health: () => Health;
  readonly metrics: () => Promise<MetricsText>;
  /** @throws BridgeError `denied` for a certificate that is missing or not good */
  readonly identify: (request: IncomingMessage) => Identity;
}

/** Figures tell of every tenant's work, so a host may not read them. */
const METRICS_ROLES: readonly string[] = ['operator', 'auditor'];

/** Answers what is no WebSocket: GET /health to anybody, GET /metrics to an operator or auditor. */
export async function answerHttp(
  endpoints: Endpoints,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  // Nobody reads a body, however long it is: the connection ends with the answer.
  if (hasBody(request)) response.setHeader('connection', 'close');
  const path = request.url?.split('?', 1)[0];
  if (path !== '/health' && path !== '/metrics') {
    text(response, 426, 'this is a WebSocket server');
    return;
  }
  if (request.method !== 'GET') {
    response.setHeader('allow', 'GET');
    text(response, 405, `${path} can only be read: use GET`);
    return;
  }
  response.setHeader('cache-control', 'no-store');
  if (path === '/health') {
    const status = endpoints.health();
    response
      .writeHead(status === 'ok' ? 200 : 503, { 'content-type': 'application/json' })
      .end(JSON.stringify({ status }));
    return;
  }
  let identity: Identity;
  try {
    identity = endpoints.identify(request);
  } catch (error) {
    text(response, refusalStatus(asBridgeError(error)), asBridgeError(error).message);
    return;
  }
  if (!METRICS_ROLES.includes(identity.role)) {
    text(
      response,
      403,
      `metrics are for an operator or auditor; ${identity.name} is a ${identity.role}`,
    );
    return;
  }
  const metrics = await endpoints.metrics();
  response.writeHead(200, { 'content-type': metrics.contentType }).end(metrics.text);
}

/** How HTTP says why somebody may not come in. */
export const refusalStatus = ({ code }: BridgeError): 401 | 500 | 503 =>
  code === 'denied' ? 401 : code === 'internal' ? 500 : 503;

export function text(response: ServerResponse, status: number, sentence: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(`${sentence}\n`);
}

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
