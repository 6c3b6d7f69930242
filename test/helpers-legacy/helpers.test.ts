import { rm } from 'node:fs/promises';
import t, { type Test } from 'tap';
import {
  dialectOf,
  LANGUAGES,
  type Language,
  pathWithoutJq,
  pick,
  runScript,
} from './languages.js';
import { type Case, SPECIFICATION } from './specification.js';

// The languages run side by side, the cases of one language in turn.
t.jobs = LANGUAGES.length;

const withoutJq = await pathWithoutJq();
t.teardown(() => rm(withoutJq, { recursive: true }));

for (const language of LANGUAGES) {
  const { name, program } = dialectOf(language);
  const skip = program === null ? 'not installed here' : false;
  void t.test(name, { skip, buffered: true }, async (t) => {
    for (const [chapter, cases] of Object.entries(SPECIFICATION))
      void t.test(chapter, async (t) => {
        for (const each of cases)
          if (pick(each.script, language) !== undefined)
            void t.test(each.name, (t) => check(t, each, language));
      });
  });
}

async function check(t: Test, each: Case, language: Language): Promise<void> {
  const { render, shown, written } = dialectOf(language);
  const lines = pick(each.script, language) ?? [];
  const body = lines.map((line) => (typeof line === 'string' ? line : render(line))).join('\n');
  const path = language === 'plain' ? withoutJq : (process.env['PATH'] ?? '');
  const given = each.given ?? {};
  const ended = await runScript(language, body, { files: given, links: each.links ?? {} }, path);

  t.equal(ended.stdout, (pick(each.answers, language) ?? []).map(shown).join(''), 'stdout');
  t.match(ended.stderr, pick(each.complains, language) ?? /^$/, 'stderr');
  t.equal(ended.exit, pick(each.exit, language) ?? 0, 'exit status');

  const files = { ...ended.files };
  const wanted: Record<string, string> = { ...given };
  for (const [name, content] of Object.entries(pick(each.leaves, language) ?? {})) {
    if (content instanceof RegExp) {
      t.match(files[name], content, name);
      delete files[name];
      delete wanted[name];
    } else wanted[name] = 'text' in content ? content.text : written(content.document);
  }
  t.same(files, wanted, 'files');
}
