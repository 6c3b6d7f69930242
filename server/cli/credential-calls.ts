import type { Connection } from '#bridge/client/connection.js';
import type { CredentialOperations } from '#bridge/wire/protocol/credentials.js';
import type { Params, Result } from '#bridge/wire/protocol.js';

/** The calls of CREDENTIAL_OPERATIONS on a connection. */
export interface CredentialCalls extends Disposable {
  call<O extends keyof CredentialOperations>(
    op: O,
    params: Params<CredentialOperations, O>,
  ): Promise<Result<CredentialOperations, O>>;
}

/** To be dropped when SERVER_OPERATIONS has CREDENTIAL_OPERATIONS in it: every connection has these calls then. */
export const credentialCalls = (connection: Connection): CredentialCalls =>
  connection as unknown as CredentialCalls;
