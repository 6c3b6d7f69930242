import { Extents } from '#bridge/vfs/extents.js';
import { randomTest } from '#test/support/random.js';

const UNITS = 60;

randomTest('extents say what a list of marked units says', async (t, random) => {
  for (let round = 0; round < 300; round++) {
    const extents = new Extents();
    const marks = Array.from({ length: UNITS }, () => false);
    for (let step = 0; step < 60; step++) {
      const start = random.int(UNITS);
      const end = start + random.int(UNITS - start + 1);
      const adds = random.int(2) === 0;
      if (adds) extents.add(start, end);
      else extents.remove(start, end);
      marks.fill(adds, start, end);

      const from = random.int(UNITS);
      const to = from + random.int(UNITS - from + 1);
      const said = [
        extents.total,
        extents.covered(from, to),
        extents.nextCovered(from),
        extents.nextUncovered(from),
      ];
      const next = (wanted: boolean) => {
        const at = marks.indexOf(wanted, from);
        return at < 0 ? undefined : at;
      };
      const truth = [
        marks.filter(Boolean).length,
        marks.slice(from, to).filter(Boolean).length,
        next(true),
        next(false) ?? UNITS,
      ];
      if (JSON.stringify(said) !== JSON.stringify(truth)) {
        t.same(said, truth, `round ${round}, step ${step}: from ${from} to ${to}`);
        return;
      }
    }
  }
  t.pass('300 rounds');
});
