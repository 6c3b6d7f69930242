// Tries: all memory of the machine, by buffers outside of the heap that V8 limits.
// Outcome: oom 137
// Options: --memory 96m
const kept = [];
for (;;) kept.push(Buffer.alloc(8 << 20, 1));
