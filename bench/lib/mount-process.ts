// A mount of ours, served by a process of its own: what `ServedMount` starts and talks to.
import { FakeRuntime, TestMount, type TestTree } from '#test/support/mounted.js';
import type { Answer, Question } from './served-mount.js';

const mount = await TestMount.open();
const trees: { readonly tree: TestTree; readonly runtime: FakeRuntime }[] = [];

async function answer(question: Question): Promise<string> {
  switch (question.kind) {
    case 'tree': {
      const runtime = new FakeRuntime(question.variables);
      const tree = await mount.tree(runtime, { files: question.files });
      trees.push({ tree, runtime });
      return tree.work;
    }
    case 'push': {
      const found = trees.find(({ tree }) => tree.work === question.work);
      if (found === undefined) throw new Error(`there is no tree at ${question.work}`);
      found.tree.mounted.changed(found.runtime.change(question.key, question.text));
      return '';
    }
    case 'remove': {
      const at = trees.findIndex(({ tree }) => tree.work === question.work);
      await trees.splice(at, at < 0 ? 0 : 1)[0]?.tree[Symbol.asyncDispose]();
      return '';
    }
  }
}

const send = (message: Answer) => process.send?.(message);

process.on('message', (question: Question) => {
  answer(question).then(
    (text) => send({ id: question.id, text }),
    (error: unknown) => send({ id: question.id, failure: String(error) }),
  );
});
// The bench has gone, whatever became of it: nothing may stay mounted.
process.on('disconnect', () => {
  void mount[Symbol.asyncDispose]().then(() => process.exit(0));
});
process.on('SIGINT', () => {}); // the terminal's: the bench hears it too, and hangs up
send({ id: 0, text: 'ready' });
