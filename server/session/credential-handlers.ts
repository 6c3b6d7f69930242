import { asBridgeError, BridgeError } from '#bridge/wire/errors.js';
import { ExecutionId } from '#bridge/wire/names.js';
import type { Handlers } from '#bridge/wire/peer.js';
import type {
  Capability,
  CredentialOperations,
  Profile,
} from '#bridge/wire/protocol/credentials.js';
import type { Result } from '#bridge/wire/protocol.js';
import { accessOf, allows, PROFILE_CAPABILITIES } from '#server/auth/access.js';
import type { Identity } from '#server/auth/identity.js';
import type { Revocations } from '#server/auth/revocations.js';
import type { Successions } from '#server/auth/successions.js';
import type { TokenRecords } from '#server/auth/token-records.js';
import type { Tokens } from '#server/auth/tokens.js';
import type { Executions } from '#server/services/executions.js';

export interface CredentialServices {
  readonly tokens: Tokens;
  readonly revocations: Revocations;
  readonly successions: Successions;
  readonly tokenRecords: TokenRecords;
  readonly executions: Executions;
  /** Reads the server's certificate and signing keys from their files and uses them. */
  readonly reload: () => Promise<Result<CredentialOperations, 'server.reload'>>;
}

/** Handlers for one connection of an operator. */
export function credentialHandlers(
  { tokens, revocations, successions, tokenRecords, executions, reload }: CredentialServices,
  { identity }: { readonly identity: Identity },
): Handlers<CredentialOperations> {
  const by = `${identity.role}:${identity.name}`;
  const isExecution = async (id: string): Promise<boolean> =>
    await executions.place(ExecutionId.parse(id)).then(
      () => true,
      (error: unknown) => {
        if (asBridgeError(error).code === 'not_found') return false;
        throw error;
      },
    );
  return {
    'cert.revoke': async ({ params: { thumbprint, reason }, note }) => {
      if (thumbprint === identity.thumbprint)
        throw new BridgeError(
          'invalid',
          'this is the certificate you call with; make a new one first: cronium cert rotate operator',
        );
      return await revocations.revokeCertificate(thumbprint, reason, by, note);
    },

    'cert.revoked': async () => ({ revocations: revocations.list() }),

    'cert.succeed': async ({ params: { thumbprint, successor }, note }) => {
      if (thumbprint === successor)
        throw new BridgeError('invalid', 'a certificate cannot take over from itself');
      await successions.succeed(thumbprint, successor, by, note);
      return {};
    },

    'token.mint': async ({ params, note }) => {
      const { executionId, thumbprint, profile, mode, scopes, lifetimeMs } = params;
      for (const scope of scopes ?? []) assertWithin(profile, scope);
      const place = await executions.place(executionId);
      await executions.assertRunning(place);
      if (revocations.isRevoked(thumbprint))
        throw new BridgeError(
          'invalid',
          'the host certificate was revoked: no token can be for it',
        );
      const access = { profile, mode, cap: scopes ?? PROFILE_CAPABILITIES[profile] };
      const minted = await tokens.mint({ ...place, ...access }, thumbprint, lifetimeMs);
      const { jti, expiresAt } = minted;
      if (revocations.isTokenRevoked({ jti, family: jti, executionId }))
        throw new BridgeError('denied', `the tokens of execution ${executionId} were revoked`);
      const kept = { jti, executionId, ...access, thumbprint, by, expiresAt };
      await tokenRecords.add(kept, note);
      return { token: minted.token, lifetimeMs: minted.lifetimeMs, ...kept };
    },

    'token.list': async () => ({
      tokens: (await tokenRecords.list()).map((record) => ({
        ...record,
        isRevoked: revocations.isTokenRevoked({ ...record, family: record.jti }),
      })),
    }),

    'token.revoke': async ({ params: { id, reason }, note }) => {
      const isKnown = (await tokenRecords.has(id)) || (await isExecution(id));
      return { ...(await revocations.revokeToken(id, reason, by, note)), isKnown };
    },

    'server.reload': async () => await reload(),
  };
}

/** A scope can only narrow; one that would not count is a mistake of whoever asked for it. */
function assertWithin(profile: Profile, { area, access }: Capability): void {
  const want = access === 'r' ? 'r' : 'w';
  if (!allows(accessOf(profile), area, want))
    throw new BridgeError(
      'invalid',
      `the profile "${profile}" does not open ${area} for ${want === 'r' ? 'reading' : 'writing'}`,
    );
}
