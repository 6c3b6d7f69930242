/*
 * The peer of `npm run bench -- fs`: a low-level, single-threaded libfuse3 server that keeps everything in memory. It does
 * as little as a server can, so it stands for the price of FUSE itself. Caching rules, request size and mount options are
 * those of our mount: what is left as a difference is the server.
 *
 *   memory-fs MOUNTPOINT TTL_SECONDS NEW_FILES     prints "ready", serves until SIGTERM or unmount
 *
 * A directory made with a name that starts with "new-" is born with NEW_FILES files of 4 KiB, f000000 and up, which the
 * kernel has never heard of: that is what an uncached look-up needs.
 */
#define FUSE_USE_VERSION 34
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS (1u << 18)
#define NEW_BYTES 4096

struct node {
	struct node *parent, *hash_next;
	struct node *first, **back, *next; /* children; our place among the parent's */
	char *name;
	char *data;
	size_t capacity;
	uint64_t lookups;
	unsigned opens;
	struct stat st;
};

static struct node root;
static struct node *buckets[BUCKETS];
static double ttl;
static unsigned new_files;
static ino_t next_ino = 1;

static struct node *at(fuse_ino_t ino) { return ino == FUSE_ROOT_ID ? &root : (struct node *)(uintptr_t)ino; }

static struct node **bucket(struct node *parent, const char *name)
{
	uint64_t h = 14695981039346656037ull ^ (uintptr_t)parent; /* FNV-1a */
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 1099511628211ull;
	return &buckets[(h >> 20) % BUCKETS];
}

static struct node *find(struct node *parent, const char *name)
{
	for (struct node *n = *bucket(parent, name); n; n = n->hash_next)
		if (n->parent == parent && !strcmp(n->name, name))
			return n;
	return NULL;
}

static void now(struct timespec *t) { clock_gettime(CLOCK_REALTIME, t); }

static void init_stat(struct node *n, mode_t mode, uid_t uid, gid_t gid)
{
	n->st.st_ino = next_ino++;
	n->st.st_mode = mode;
	n->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
	n->st.st_uid = uid;
	n->st.st_gid = gid;
	n->st.st_blksize = 4096;
	now(&n->st.st_mtim);
	n->st.st_atim = n->st.st_ctim = n->st.st_mtim;
}

static struct node *add(struct node *parent, const char *name, mode_t mode, uid_t uid, gid_t gid)
{
	struct node *n = calloc(1, sizeof *n);
	struct node **b = bucket(parent, name);
	if (!n || !(n->name = strdup(name))) {
		free(n);
		return NULL;
	}
	init_stat(n, mode, uid, gid);
	n->parent = parent;
	n->hash_next = *b;
	*b = n;
	if ((n->next = parent->first))
		n->next->back = &n->next;
	n->back = &parent->first;
	parent->first = n;
	now(&parent->st.st_mtim);
	return n;
}

static void collect(struct node *n)
{
	if (n == &root || n->lookups || n->opens || n->st.st_nlink)
		return;
	free(n->data);
	free(n->name);
	free(n);
}

/* Blocks follow the size; 0, or -1 without memory. */
static int resize(struct node *n, size_t size)
{
	if (size > n->capacity) {
		size_t capacity = n->capacity * 2 > size ? n->capacity * 2 : size;
		char *data = realloc(n->data, capacity);
		if (!data)
			return -1;
		n->data = data;
		n->capacity = capacity;
	}
	if (size > (size_t)n->st.st_size)
		memset(n->data + n->st.st_size, 0, size - n->st.st_size);
	n->st.st_size = size;
	n->st.st_blocks = (size + 4095) / 4096 * 8;
	return 0;
}

static struct fuse_entry_param entry(struct node *n)
{
	struct fuse_entry_param e = { .ino = (uintptr_t)n, .attr = n->st, .attr_timeout = ttl, .entry_timeout = ttl };
	n->lookups++;
	return e;
}

static void fs_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	conn->want &= ~(FUSE_CAP_ASYNC_READ | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
			FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_IOCTL_DIR);
	conn->want |= FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS;
	conn->max_write = 1 << 20;
	conn->max_background = 65535;
	conn->congestion_threshold = 65535;
}

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *n = find(at(parent), name);
	struct fuse_entry_param e = { .entry_timeout = ttl };
	if (n)
		e = entry(n);
	fuse_reply_entry(req, &e); /* without a node: the kernel may remember that there is none */
}

static void forget_one(fuse_ino_t ino, uint64_t count)
{
	struct node *n = at(ino);
	n->lookups -= count;
	collect(n);
}

static void fs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	forget_one(ino, count);
	fuse_reply_none(req);
}

static void fs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget_one(forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	fuse_reply_attr(req, &at(ino)->st, ttl);
}

static void fs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *to, int set, struct fuse_file_info *fi)
{
	struct node *n = at(ino);
	(void)fi;
	if ((set & FUSE_SET_ATTR_SIZE) && resize(n, to->st_size)) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	if (set & FUSE_SET_ATTR_MODE)
		n->st.st_mode = (n->st.st_mode & S_IFMT) | (to->st_mode & 07777);
	if (set & FUSE_SET_ATTR_UID)
		n->st.st_uid = to->st_uid;
	if (set & FUSE_SET_ATTR_GID)
		n->st.st_gid = to->st_gid;
	if (set & FUSE_SET_ATTR_MTIME)
		n->st.st_mtim = to->st_mtim;
	if (set & FUSE_SET_ATTR_MTIME_NOW)
		now(&n->st.st_mtim);
	now(&n->st.st_ctim);
	fuse_reply_attr(req, &n->st, ttl);
}

static void fs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct node *n = add(at(parent), name, S_IFDIR | (mode & 07777), ctx->uid, ctx->gid);
	struct fuse_entry_param e;
	for (unsigned i = 0; n && !strncmp(name, "new-", 4) && i < new_files; i++) {
		char file[16];
		snprintf(file, sizeof file, "f%06u", i);
		struct node *f = add(n, file, S_IFREG | 0644, ctx->uid, ctx->gid);
		if (!f || resize(f, NEW_BYTES)) {
			fuse_reply_err(req, ENOMEM);
			return;
		}
	}
	if (!n) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	e = entry(n);
	fuse_reply_entry(req, &e);
}

static void fs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *n = find(at(parent), name), **b = bucket(at(parent), name);
	if (!n) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	while (*b != n)
		b = &(*b)->hash_next;
	*b = n->hash_next;
	if ((*n->back = n->next))
		n->next->back = n->back;
	n->st.st_nlink = 0;
	now(&at(parent)->st.st_mtim);
	collect(n);
	fuse_reply_err(req, 0);
}

static void opened(struct node *n, struct fuse_file_info *fi)
{
	if (fi->flags & O_TRUNC)
		resize(n, 0);
	n->opens++;
	fi->keep_cache = 1;
	fi->noflush = (fi->flags & O_ACCMODE) == O_RDONLY; /* as ours */
}

static void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	opened(at(ino), fi);
	fuse_reply_open(req, fi);
}

static void fs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct node *n = find(at(parent), name);
	struct fuse_entry_param e;
	if (!n)
		n = add(at(parent), name, S_IFREG | (mode & 07777), ctx->uid, ctx->gid);
	if (!n) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	opened(n, fi);
	e = entry(n);
	fuse_reply_create(req, &e, fi);
}

static void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct node *n = at(ino);
	(void)fi;
	size_t left = offset < n->st.st_size ? n->st.st_size - offset : 0;
	fuse_reply_buf(req, n->data + offset, size < left ? size : left);
}

static void fs_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct node *n = at(ino);
	(void)fi;
	if (offset + size > n->capacity) { /* grow without clearing what is written below */
		size_t capacity = n->capacity * 2 > offset + size ? n->capacity * 2 : offset + size;
		char *grown = realloc(n->data, capacity);
		if (!grown) {
			fuse_reply_err(req, ENOSPC);
			return;
		}
		n->data = grown;
		n->capacity = capacity;
	}
	if (offset > n->st.st_size)
		memset(n->data + n->st.st_size, 0, offset - n->st.st_size);
	memcpy(n->data + offset, data, size);
	if ((off_t)(offset + size) > n->st.st_size) {
		n->st.st_size = offset + size;
		n->st.st_blocks = (n->st.st_size + 4095) / 4096 * 8;
	}
	now(&n->st.st_mtim);
	fuse_reply_write(req, size);
}

static void fs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino, (void)fi;
	fuse_reply_err(req, 0); /* not ENOSYS: the kernel would never ask again, and we must be asked */
}

static void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = at(ino);
	(void)fi;
	n->opens--;
	collect(n);
	fuse_reply_err(req, 0);
}

static void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	char *buffer = malloc(size);
	size_t used = 0;
	off_t i = 0;
	(void)fi;
	for (struct node *n = at(ino)->first; buffer && n; n = n->next, i++) {
		size_t bytes = i < offset ? 0 : fuse_add_direntry(req, buffer + used, size - used, n->name, &n->st, i + 1);
		if (bytes > size - used)
			break;
		used += bytes;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static const struct fuse_lowlevel_ops ops = {
	.init = fs_init, .lookup = fs_lookup, .forget = fs_forget, .forget_multi = fs_forget_multi, .getattr = fs_getattr,
	.setattr = fs_setattr, .mkdir = fs_mkdir, .unlink = fs_unlink, .open = fs_open, .create = fs_create, .read = fs_read,
	.write = fs_write, .flush = fs_flush, .release = fs_release, .readdir = fs_readdir,
};

int main(int argc, char **argv)
{
	char *arguments[] = { argv[0], "-o", "allow_other,default_permissions,fsname=cronium-bench" };
	struct fuse_args args = FUSE_ARGS_INIT(3, arguments);
	if (argc != 4) {
		fprintf(stderr, "usage: memory-fs MOUNTPOINT TTL_SECONDS NEW_FILES\n");
		return 2;
	}
	ttl = atof(argv[2]);
	new_files = atoi(argv[3]);
	init_stat(&root, S_IFDIR | 0755, getuid(), getgid());
	struct fuse_session *session = fuse_session_new(&args, &ops, sizeof ops, NULL);
	if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, argv[1]))
		return 1;
	puts("ready");
	fflush(stdout);
	int status = fuse_session_loop(session);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return status < 0;
}
