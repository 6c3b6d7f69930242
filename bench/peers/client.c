/*
 * The client of `npm run bench`: does one operation many times in a directory and prints the result.
 *
 *   client WHAT DIR COUNT PROCESSES     WHAT: stat stat-new open open-new pread create write read stat-paced scratch
 *
 * COUNT is shared by the processes; each works on files of its own. Prints nanoseconds per operation (wall time from the
 * first start to the last end, divided by COUNT); for write and read, where COUNT is mebibytes, MB/s. Two are different:
 *
 * stat-paced is stat-new with a call every millisecond, and prints the median and the 99th percentile of what a call took.
 * A client that calls without pause would see a server's stall in one call of hundreds and never count it.
 *
 * scratch writes COUNT mebibytes whose content depends on where they are, reads them back twice without the kernel's pages
 * and compares; prints the MB/s of the three.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SMALL 4096
#define LARGE (1 << 20)
#define TMPFS 0x01021994 /* TMPFS_MAGIC of linux/magic.h */
#define PACE_NS 1000000

static char buffer[LARGE];
static int64_t *took; /* of stat-paced: nanoseconds of each call, shared by the processes */

static void die(const char *format, ...)
{
	int error = errno;
	va_list list;
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fprintf(stderr, ": %s\n", strerror(error));
	_exit(1);
}

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int opened(const char *name, int flags)
{
	int fd = open(name, flags, 0644);
	if (fd < 0)
		die("cannot open %s", name);
	return fd;
}

static void put(int fd, size_t size)
{
	if (write(fd, buffer, size) != (ssize_t)size)
		die("cannot write %zu bytes", size);
}

static void stat_one(const char *name)
{
	struct stat st;
	if (stat(name, &st))
		die("cannot stat %s", name);
}

static void read_one(const char *name)
{
	int fd = opened(name, O_RDONLY);
	if (read(fd, buffer, SMALL) != SMALL)
		die("cannot read 4 KiB of %s", name);
	if (close(fd))
		die("cannot close %s", name);
}

static void create_one(const char *name)
{
	int fd = opened(name, O_CREAT | O_EXCL | O_WRONLY);
	put(fd, 100);
	if (close(fd))
		die("cannot close %s", name);
	if (unlink(name))
		die("cannot unlink %s", name);
}

/* Takes a turn at every full PACE_NS after `start`; after a call that took longer, at the next one. */
static void paced(int64_t start)
{
	int64_t turn = start + ((now() - start) / PACE_NS + 1) * PACE_NS;
	struct timespec t = { turn / 1000000000, turn % 1000000000 };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
		;
}

static void new_name(char *name, long i) { snprintf(name, 32, "f%06ld", i); }

/* Drops the pages of the file and makes sure that they are gone. tmpfs has nowhere to drop them to. */
static void drop_pages(int fd, size_t size)
{
	struct statfs fs;
	size_t pages = size / SMALL, resident = 0;
	unsigned char *is = malloc(pages);
	if (fstatfs(fd, &fs) || !is)
		die("cannot ask for the file system");
	if (fs.f_type != TMPFS) {
		if ((errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)))
			die("cannot drop the pages");
		void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED || mincore(map, size, is))
			die("cannot look at the pages");
		munmap(map, size);
		for (size_t i = 0; i < pages; i++)
			resident += is[i] & 1;
		errno = EBUSY;
		if (resident > pages / 100)
			die("%zu of %zu pages stayed in the cache, the read would not be one", resident, pages);
	}
	free(is);
}

/* One mebibyte that no other block number has. */
static void fill(uint64_t *words, uint64_t block)
{
	uint64_t x = block * 0x9e3779b97f4a7c15ull + 1;
	for (size_t i = 0; i < LARGE / sizeof *words; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64 */
		words[i] = x;
	}
}

static double rate(long mebibytes, int64_t since) { return mebibytes * (double)LARGE / 1e6 / ((now() - since) / 1e9); }

static void scratch(long mebibytes)
{
	static uint64_t expected[LARGE / sizeof(uint64_t)];
	int fd = opened("scratch", O_CREAT | O_EXCL | O_RDWR);
	int64_t start = now();
	for (long i = 0; i < mebibytes; i++) {
		fill(expected, i);
		if (write(fd, expected, LARGE) != LARGE)
			die("cannot write block %ld", i);
	}
	if (close(fd))
		die("cannot close scratch");
	printf("%.3f", rate(mebibytes, start));
	for (int pass = 0; pass < 2; pass++) {
		fd = opened("scratch", O_RDONLY);
		drop_pages(fd, mebibytes * (size_t)LARGE);
		start = now();
		for (long i = 0; i < mebibytes; i++) {
			fill(expected, i);
			if (read(fd, buffer, LARGE) != LARGE)
				die("cannot read block %ld", i);
			errno = EIO;
			if (memcmp(buffer, expected, LARGE))
				die("block %ld is not what was written", i);
		}
		printf(" %.3f", rate(mebibytes, start));
		close(fd);
	}
	puts("");
	if (unlink("scratch"))
		die("cannot unlink scratch");
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

struct span {
	int64_t start, end;
};

/* One process: prepares, says so on `ready`, waits for the end of `go`, works. `from` and `to` are its share of COUNT. */
static struct span work(const char *what, int process, long from, long to, int ready, int go)
{
	char own[32], name[32], byte = 0;
	struct span span;
	int fd = -1;
	int is_large = !strcmp(what, "write") || !strcmp(what, "read");
	snprintf(own, sizeof own, "p%d", process);
	unlink(own);
	memset(buffer, 'x', sizeof buffer);
	if (!strcmp(what, "stat") || !strcmp(what, "open") || !strcmp(what, "pread") || !strcmp(what, "read")) {
		fd = opened(own, O_CREAT | O_RDWR);
		for (long i = from; is_large && i < to; i++)
			put(fd, LARGE);
		if (!is_large) {
			put(fd, SMALL);
			stat_one(own);
			read_one(own);
		}
	}
	if (!strcmp(what, "read"))
		drop_pages(fd, (size_t)(to - from) * LARGE);
	if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 0)
		die("the other processes are gone");

	span.start = now();
	if (!strcmp(what, "stat"))
		for (long i = from; i < to; i++)
			stat_one(own);
	else if (!strcmp(what, "stat-new"))
		for (long i = from; i < to; i++)
			new_name(name, i), stat_one(name);
	else if (!strcmp(what, "stat-paced"))
		for (long i = from; i < to; i++) {
			new_name(name, i);
			paced(span.start);
			int64_t called = now();
			stat_one(name);
			took[i] = now() - called;
		}
	else if (!strcmp(what, "open"))
		for (long i = from; i < to; i++)
			read_one(own);
	else if (!strcmp(what, "open-new"))
		for (long i = from; i < to; i++)
			new_name(name, i), read_one(name);
	else if (!strcmp(what, "pread")) {
		for (long i = from; i < to; i++)
			if (pread(fd, buffer, SMALL, 0) != SMALL)
				die("cannot read %s", own);
	} else if (!strcmp(what, "create"))
		for (long i = from; i < to; i++)
			create_one(own);
	else if (!strcmp(what, "write")) {
		fd = opened(own, O_CREAT | O_EXCL | O_WRONLY);
		for (long i = from; i < to; i++)
			put(fd, LARGE);
		if (close(fd))
			die("cannot close %s", own);
		fd = -1;
	} else if (!strcmp(what, "read")) {
		for (long i = 0; i < to - from; i++)
			if (pread(fd, buffer, LARGE, (off_t)i * LARGE) != LARGE)
				die("cannot read %s", own);
	} else {
		fprintf(stderr, "%s is nothing this client can do\n", what);
		_exit(2);
	}
	span.end = now();
	unlink(own);
	return span;
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: client WHAT DIR COUNT PROCESSES\n");
		return 2;
	}
	const char *what = argv[1];
	long count = atol(argv[3]);
	int processes = atoi(argv[4]), ready[2], go[2], failed = 0;
	char byte;
	struct span all = { INT64_MAX, 0 };
	struct span *spans = mmap(NULL, processes * sizeof *spans, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (spans == MAP_FAILED || pipe(ready) || pipe(go))
		die("cannot prepare");
	if (chdir(argv[2]))
		die("cannot enter %s", argv[2]);
	if (!strcmp(what, "scratch")) {
		scratch(count);
		return 0;
	}
	took = mmap(NULL, count * sizeof *took, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (took == MAP_FAILED)
		die("cannot prepare");
	for (int i = 0; i < processes; i++) {
		pid_t pid = fork();
		if (pid < 0)
			die("cannot fork");
		if (pid == 0) {
			close(go[1]);
			spans[i] = work(what, i, count * i / processes, count * (i + 1) / processes, ready[1], go[0]);
			_exit(0);
		}
	}
	close(ready[1]);
	close(go[0]);
	for (int i = 0; i < processes; i++)
		if (read(ready[0], &byte, 1) != 1)
			break; /* a child died and has said why */
	close(go[1]);
	for (int i = 0, status; i < processes; i++)
		if (wait(&status) < 0 || status != 0)
			failed = 1;
	if (failed)
		return 1;
	for (int i = 0; i < processes; i++) {
		if (spans[i].start < all.start)
			all.start = spans[i].start;
		if (spans[i].end > all.end)
			all.end = spans[i].end;
	}
	if (!strcmp(what, "stat-paced")) {
		qsort(took, count, sizeof *took, ascending);
		printf("%lld %lld\n", (long long)took[count / 2], (long long)took[count * 99 / 100]);
		return 0;
	}
	double ns = all.end - all.start;
	int is_large = !strcmp(what, "write") || !strcmp(what, "read");
	printf("%.3f\n", is_large ? count * (double)LARGE / 1e6 / (ns / 1e9) : ns / count);
	return 0;
}
