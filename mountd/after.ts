/** Calls `action` once: after `ms`, or when it is disposed of, whichever is first. */
export function after(ms: number, action: () => void): Disposable {
  let isDone = false;
  const once = () => {
    if (!isDone) action();
    isDone = true;
  };
  const timer = setTimeout(once, ms);
  return {
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      once();
    },
  };
}
