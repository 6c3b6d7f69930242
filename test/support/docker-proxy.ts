import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';

const DOCKER_SOCKET = '/var/run/docker.sock';

/** A socket that leads to Docker, and can be cut: for whoever uses it the engine is then gone. */
export class DockerProxy implements AsyncDisposable {
  readonly path: string;
  readonly #open = new Set<Socket>();
  #server: Server | undefined;

  constructor(path: string) {
    this.path = path;
  }

  async listen(): Promise<void> {
    rmSync(this.path, { force: true });
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      const docker = connect({ path: DOCKER_SOCKET, allowHalfOpen: true });
      for (const [one, other] of [
        [socket, docker],
        [docker, socket],
      ] as const) {
        this.#open.add(one);
        one.on('error', () => {});
        one.on('close', () => {
          this.#open.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.path, resolve));
  }

  /** Nobody answers any more, and what was open is broken off. */
  async cut(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of this.#open) socket.destroy();
    await closed;
    rmSync(this.path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cut();
  }
}
