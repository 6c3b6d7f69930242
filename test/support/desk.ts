import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { State } from '#server/admin/state.js';
import { type Command, dispatch } from '#server/cli/command.js';
import { InProcessServer } from './in-process-server.js';

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  /** What stdout is made of. */
  readonly bytes: Buffer;
  readonly stderr: string;
}

/** An operator's terminal: commands against a server in this process. */
export class Desk implements AsyncDisposable {
  readonly server: InProcessServer;
  readonly #commands: readonly Command[];
  readonly #state: State;

  private constructor(server: InProcessServer, commands: readonly Command[]) {
    this.server = server;
    this.#commands = commands;
    this.#state = new State(join(server.directory, 'state'));
  }

  static async open(commands: readonly Command[]): Promise<Desk> {
    const desk = new Desk(await InProcessServer.start(), commands);
    const state = desk.#state;
    mkdirSync(state.path('pki'), { recursive: true });
    for (const name of ['ca.crt', 'operator.crt', 'operator.key'])
      copyFileSync(join(desk.server.directory, name), state.path('pki', name));
    state.writeSettings({ listen: desk.server.address });
    return desk;
  }

  async run(
    args: readonly string[],
    stdin: string | Uint8Array = '',
    signal = new AbortController().signal,
  ): Promise<Ran> {
    const written: Buffer[] = [];
    let stderr = '';
    const code = await dispatch(this.#commands, args, {
      out: (result) => written.push(Buffer.from(result as string)),
      err: (text) => {
        stderr += `${text}\n`;
      },
      stdin: async () => Buffer.from(stdin as string),
      env: { CRONIUM_STATE: this.#state.directory },
      signal,
    });
    const bytes = Buffer.concat(written);
    return { code, stdout: bytes.toString(), bytes, stderr };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }
}
