// eight asynchronous functions that each set a key and add to a sum
(async () => {
  await Promise.all(
    Array.from({ length: 8 }, async (_, n) => {
      await null;
      cronium.setVariable(`k${n}`, n);
      cronium.setVariable('sum', (cronium.getVariable('sum') ?? 0) + n);
    }),
  );
  console.log(cronium.getVariable('sum'));
})();
