# Tries: all memory of the machine, touched page by page.
# Outcome: oom 137
# Options: --memory 64m
kept = []
while True:
    kept.append(bytearray(8 * 1024 * 1024))
    for at in range(0, len(kept[-1]), 4096):
        kept[-1][at] = 1
