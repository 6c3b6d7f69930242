import { ExecutionId } from '#bridge/wire/names.js';
import { Installation } from '#server/admin/installation.js';
import { State } from '#server/admin/state.js';
import { COMMON, command, Misuse } from './command.js';

export const executionShow = command({
  name: 'exec show',
  summary: 'Show what the server keeps of an execution',
  usage: 'cronium exec show EXECUTION [--json]',
  help: 'example: cronium exec show 5f0c…',
  options: COMMON,
  async run({ positionals: [id], values }, io) {
    if (id === undefined) throw new Misuse('which execution? `cronium run` prints its id');
    const executionId = ExecutionId.safeParse(id);
    if (!executionId.success) throw new Misuse(`${JSON.stringify(id)} is not an execution id`);
    using server = await new Installation(State.of(values.state, io.env)).operator();
    const { record, output, condition } = await server.call('execution.get', {
      executionId: executionId.data,
    });
    const json = `{"executionId":"${id}","record":${JSON.stringify(record)},"output":${output ?? 'null'},"condition":${condition}}`;
    if (values.json) io.out(`${json}\n`);
    else {
      for (const [name, value] of Object.entries(record))
        io.out(`${name.padEnd(12)} ${JSON.stringify(value)}\n`);
      io.out(
        `${'output'.padEnd(12)} ${output ?? 'none'}\n${'condition'.padEnd(12)} ${condition ?? 'none'}\n`,
      );
    }
    return 0;
  },
});
