/*
 * arcvmm - boot a Linux kernel in a microVM and talk to it.
 *
 * This is the whole public interface of the library; the CLI is written on it
 * and on nothing else.
 *
 *	struct arcvmm_config *cfg = arcvmm_config_new();
 *	struct arcvmm_error err = { 0 };
 *	struct arcvmm_vm *vm;
 *	struct arcvmm_result res;
 *
 *	arcvmm_config_set(cfg, "kernel", "/boot/vmlinuz", &err);
 *	arcvmm_config_set(cfg, "root", "/srv/rootfs", &err);
 *	arcvmm_config_command(cfg, (const char *[]){ "uname", "-a", NULL });
 *	if (arcvmm_vm_create(&vm, cfg, &err) || arcvmm_vm_start(vm, &err))
 *		puts(err.text);
 *	else
 *		arcvmm_vm_wait(vm, &res);
 *	arcvmm_vm_destroy(vm);
 *	arcvmm_config_free(cfg);
 *
 * Conventions
 *   - Functions return 0 (or a count, or a file descriptor) on success and
 *     -errno on failure. Those that take a struct arcvmm_error leave a sentence
 *     there: what was wrong, where, what to do. NULL is allowed for it.
 *   - Objects are made by ..._new or ..._create and freed by ..._free or
 *     ..._destroy, which accept NULL. Strings passed in are copied.
 *   - A process may have many VMs. An object may be used from any thread, one
 *     call at a time; functions marked [any thread] may be called while
 *     another call on the same VM is in progress.
 *   - Callbacks are called on the VM's own threads and must not block nor call
 *     back into the library, unless said otherwise.
 *   - The library installs no signal handlers and never exits the process.
 */
#ifndef ARCVMM_ARCVMM_H
#define ARCVMM_ARCVMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ARCVMM_API __attribute__((visibility("default")))

/* "0.1.0" */
ARCVMM_API const char *arcvmm_version(void);

/* Filled in when a function fails; text has no newline. */
struct arcvmm_error {
	int code; /* -errno */
	char text[480];
};

/* ---- configuration ---- */

struct arcvmm_config;

/* NULL when out of memory. Everything has a default but "kernel". */
ARCVMM_API struct arcvmm_config *arcvmm_config_new(void);
ARCVMM_API void arcvmm_config_free(struct arcvmm_config *c);

/*
 * Set @key to @value. Keys marked `repeat` collect values in the order given;
 * for others the last value wins. Values are checked here as far as they can
 * be without looking at the host: -EINVAL, -ERANGE, and -ENOENT for an unknown
 * key, with the nearest known one in the sentence.
 */
ARCVMM_API int arcvmm_config_set(struct arcvmm_config *c, const char *key,
				 const char *value, struct arcvmm_error *e);

/* What keys there are, for help texts and forms. */
struct arcvmm_key {
	const char *name; /* "kernel" */
	const char *arg; /* "FILE"; NULL for a switch ("on", "off") */
	const char *help; /* one line */
	const char *def; /* the default in words, or NULL */
	bool repeat;
	const char *group; /* "boot", "machine", "guest", "devices", ... */
};
/* NULL past the last. Valid for the life of the process. */
ARCVMM_API const struct arcvmm_key *arcvmm_config_key(unsigned i);
/*
 * Longer help of a key whose value has parts ("disk": path=, readonly, ...),
 * lines of text, or NULL. The caller frees it.
 */
ARCVMM_API char *arcvmm_config_key_help(const char *name);

/*
 * What to run in the guest (NULL-terminated; NULL: the root's own init). The
 * first word is looked up in the guest's PATH. -EINVAL for an empty list.
 */
ARCVMM_API int arcvmm_config_command(struct arcvmm_config *c,
				     const char *const *argv);

enum arcvmm_log_level {
	ARCVMM_LOG_ERROR,
	ARCVMM_LOG_WARN,
	ARCVMM_LOG_INFO,
	ARCVMM_LOG_DEBUG,
};
/* @text has no newline. May be called by several threads at once. */
typedef void arcvmm_log_fn(void *ctx, enum arcvmm_log_level level,
			   const char *text);
ARCVMM_API void arcvmm_config_log(struct arcvmm_config *c, arcvmm_log_fn *fn,
				  void *ctx, enum arcvmm_log_level level);

/*
 * With "console" set to "stdio": the console reads @in_fd and writes @out_fd
 * (-1: none) instead of 0 and 1. They stay the caller's and must outlive the
 * VM.
 */
ARCVMM_API void arcvmm_config_console_fds(struct arcvmm_config *c, int in_fd,
					  int out_fd);

/* ---- a virtual machine ---- */

struct arcvmm_vm;

/*
 * Check everything, choose the engine, open files, load the kernel: all that
 * can fail, short of running. @c may be freed or reused afterwards. On failure
 * nothing is left behind.
 */
ARCVMM_API int arcvmm_vm_create(struct arcvmm_vm **out,
				const struct arcvmm_config *c,
				struct arcvmm_error *e);
/* Kills the VM when it runs. Waits for its threads. */
ARCVMM_API void arcvmm_vm_destroy(struct arcvmm_vm *vm);

/* The vCPUs run from here. Once per VM. */
ARCVMM_API int arcvmm_vm_start(struct arcvmm_vm *vm, struct arcvmm_error *e);

/* How a run ended. */
enum arcvmm_end {
	ARCVMM_END_POWER_OFF, /* the guest powered off */
	ARCVMM_END_REBOOT, /* the guest asked for a reset */
	ARCVMM_END_PANIC, /* the guest kernel panicked */
	ARCVMM_END_CRASH, /* triple fault */
	ARCVMM_END_KILLED, /* arcvmm_vm_kill(), or destroyed */
	ARCVMM_END_ERROR, /* the engine could not go on: see text */
};

struct arcvmm_result {
	enum arcvmm_end end;
	/*
	 * Exit status of the command, as a shell would give it: 127 not found,
	 * 126 not executable, 128 + n killed by signal n. -1: no command was
	 * run, or the guest ended before it did.
	 */
	int status;
	char text[256]; /* ARCVMM_END_ERROR, _CRASH: a sentence */
};
/* A word for people: "power-off", "panic" ... */
ARCVMM_API const char *arcvmm_end_name(enum arcvmm_end end);

/* Sleep until the run has ended. [any thread] */
ARCVMM_API int arcvmm_vm_wait(struct arcvmm_vm *vm, struct arcvmm_result *res);
/*
 * A descriptor that becomes readable when the run has ended, for a poll loop.
 * It is the VM's: do not read or close it.
 */
ARCVMM_API int arcvmm_vm_fd(struct arcvmm_vm *vm);

/*
 * Ask the guest to power off, by the power button. [any thread]
 */
ARCVMM_API int arcvmm_vm_shutdown(struct arcvmm_vm *vm);
/* End the run now, without the guest's consent. [any thread] */
ARCVMM_API void arcvmm_vm_kill(struct arcvmm_vm *vm);

/*
 * Stop and continue all vCPUs; both return when it is so. After the pause a
 * guest with an agent is told what time it is, in the background: its clock is
 * set when it is off by more than 50 ms. [any thread]
 */
ARCVMM_API int arcvmm_vm_pause(struct arcvmm_vm *vm);
ARCVMM_API int arcvmm_vm_resume(struct arcvmm_vm *vm);

/* "kvm" or "soft", and the sentence that says why it was chosen. */
ARCVMM_API const char *arcvmm_vm_engine(const struct arcvmm_vm *vm);
ARCVMM_API const char *arcvmm_vm_engine_reason(const struct arcvmm_vm *vm);
/* The kernel command line as composed. */
ARCVMM_API const char *arcvmm_vm_cmdline(const struct arcvmm_vm *vm);

/* The terminal behind the console has this size now. [any thread] */
ARCVMM_API void arcvmm_vm_console_resize(struct arcvmm_vm *vm, unsigned cols,
					 unsigned rows);
/* "console" was "pty": the path of its terminal side; else NULL. */
ARCVMM_API const char *arcvmm_vm_console_pty(const struct arcvmm_vm *vm);

/*
 * Milestones so far, in order. The times are CLOCK_MONOTONIC nanoseconds on
 * the host; events from inside the guest carry the moment their message
 * arrived.
 */
struct arcvmm_milestone {
	const char *name; /* "vm-created", "first-instruction", "init", ... */
	uint64_t ns;
};
/* 0, or -ENOENT past the last. [any thread] */
ARCVMM_API int arcvmm_vm_milestone(struct arcvmm_vm *vm, unsigned i,
				   struct arcvmm_milestone *out);

/*
 * Counters as a JSON object (exits, interrupts, bytes by device ...): malloc'd,
 * NULL when out of memory. [any thread]
 */
ARCVMM_API char *arcvmm_vm_stats(struct arcvmm_vm *vm);

/* ---- a vsock device for another VMM's guest ---- */

/*
 * The vsock device behind a vhost-user socket, on a thread of its own: a guest
 * of QEMU (vhost-user-vsock-pci, memory-backend-memfd with share=on) and this
 * host talk through it.
 */
struct arcvmm_vhost_vsock;

struct arcvmm_vhost_vsock_config {
	const char *socket; /* where the other VMM connects */
	const char *uds_path; /* hybrid socket of the host, or NULL */
	uint64_t guest_cid;
	/* For tests: the guest's connections to the host come back to it. */
	bool hairpin;
	arcvmm_log_fn *log; /* or NULL */
	void *log_ctx;
	enum arcvmm_log_level log_level;
};
ARCVMM_API int
arcvmm_vhost_vsock_create(struct arcvmm_vhost_vsock **out,
			  const struct arcvmm_vhost_vsock_config *c,
			  struct arcvmm_error *e);
ARCVMM_API void arcvmm_vhost_vsock_destroy(struct arcvmm_vhost_vsock *s);
/*
 * Counters and the state of every connection, as lines of text: malloc'd, NULL
 * when out of memory. [any thread]
 */
ARCVMM_API char *arcvmm_vhost_vsock_dump(struct arcvmm_vhost_vsock *s);

/* ---- vsock: sockets between host and guest ---- */

enum arcvmm_vsock_type { ARCVMM_VSOCK_STREAM = 1, ARCVMM_VSOCK_SEQPACKET = 2 };

/*
 * Connect to @port in the guest. The descriptor (an ordinary connected socket,
 * close-on-exec, blocking, the caller's) comes once the guest has accepted.
 *   -ECONNREFUSED     nobody listens there
 *   -ETIMEDOUT        no answer within @timeout_ms (-1: 60 s); a guest that is
 *                     not up yet is waited for
 *   -ENODEV           the run has ended, or the VM has no vsock device
 *   -EPROTONOSUPPORT  the guest's driver cannot do @type
 * [any thread]
 */
ARCVMM_API int arcvmm_vsock_connect(struct arcvmm_vm *vm, uint32_t port,
				    enum arcvmm_vsock_type type, int timeout_ms,
				    struct arcvmm_error *e);

/*
 * Take the connections the guest makes to CID 2, @port. Beyond @backlog that
 * wait to be accepted, the guest is refused. -EADDRINUSE. [any thread]
 */
struct arcvmm_listener;
ARCVMM_API int arcvmm_vsock_listen(struct arcvmm_vm *vm, uint32_t port,
				   enum arcvmm_vsock_type type,
				   unsigned backlog,
				   struct arcvmm_listener **out,
				   struct arcvmm_error *e);
/* Readable when a connection waits. The listener's: do not close it. */
ARCVMM_API int arcvmm_listener_fd(const struct arcvmm_listener *l);
/*
 * The next connection, waiting for it unless @nonblock (-EAGAIN); @guest_port
 * (when not NULL) says from where. -ESHUTDOWN when the run has ended.
 */
ARCVMM_API int arcvmm_listener_accept(struct arcvmm_listener *l,
				      uint32_t *guest_port, bool nonblock);
/* Before arcvmm_vm_destroy(), with no thread in accept. */
ARCVMM_API void arcvmm_listener_close(struct arcvmm_listener *l);

/* ---- the agent: commands and files in the guest ---- */

/*
 * The agent runs in every guest that our init starts ("init" and "vsock" on).
 * Each request has a connection of its own, from one of the two functions
 * below; flow control between requests is thereby the transport's. The calls
 * block; use a thread where that is not wanted.
 */
#define ARCVMM_AGENT_PORT 1023

/*
 * To the agent of a VM of this process, waiting for it to be up: a connected
 * socket, -ETIMEDOUT, -ENODEV when the run has ended or the VM has no agent.
 * [any thread]
 */
ARCVMM_API int arcvmm_agent_connect(struct arcvmm_vm *vm, int timeout_ms,
				    struct arcvmm_error *e);
/* Readable once the agent is up. The VM's: do not read or close it. */
ARCVMM_API int arcvmm_vm_agent_fd(struct arcvmm_vm *vm);
/*
 * To @port in a guest of another process, through the socket that its
 * "vsock-uds" names. As arcvmm_vsock_connect(); -ENOENT or -ECONNREFUSED when
 * nobody serves that socket.
 */
ARCVMM_API int arcvmm_uds_connect(const char *path, uint32_t port,
				  int timeout_ms, struct arcvmm_error *e);

/*
 * A resource limit of a command, as setrlimit() in the guest takes it. The
 * guest may refuse what its kernel does not allow (a "nofile" above its
 * fs.nr_open, say): the command then ends with code 125 and a sentence.
 */
#define ARCVMM_LIMITS_MAX 16
#define ARCVMM_LIMIT_NONE UINT64_MAX
struct arcvmm_limit {
	int resource; /* RLIMIT_* of Linux on x86-64 */
	uint64_t soft, hard; /* in its unit, or ARCVMM_LIMIT_NONE */
};
/*
 * From text as the key "limit" takes it: NAME=SOFT[:HARD], each a number or
 * "unlimited"; HARD is SOFT where it is not given. Bytes may have K, M, G or T.
 * -EINVAL (an unknown name comes with the nearest one; SOFT above HARD),
 * -ERANGE.
 */
ARCVMM_API int arcvmm_limit_parse(struct arcvmm_limit *l, const char *text,
				  struct arcvmm_error *e);
/*
 * The name of a resource ("nofile") and, when @unit is not NULL, what it
 * counts ("bytes", "seconds", "microseconds", "number"); NULL past the last.
 */
ARCVMM_API const char *arcvmm_limit_name(unsigned resource, const char **unit);

/* A command. Zeroed is a good start; argv must be set. */
struct arcvmm_exec {
	const char *const *argv; /* NULL-terminated */
	const char *const *env; /* "NAME=value", NULL-terminated; or NULL */
	bool clean_env; /* nothing but env: no PATH, HOME, TERM */
	const char *cwd; /* NULL: "/" */
	const char *user; /* "name", "uid", "user:group"; NULL: root */
	uint64_t timeout_ns; /* then SIGTERM, later SIGKILL; 0: never */
	bool tty; /* a terminal of its own, of this size */
	uint16_t rows, cols;
	bool detach; /* return once it runs; it goes on alone */
	/* More than ARCVMM_LIMITS_MAX: -E2BIG. Of one resource, the last. */
	const struct arcvmm_limit *limits;
	size_t nlimits;
};

struct arcvmm_exit {
	int code; /* as a shell gives it; 125: it was not even tried */
	int signal; /* that ended it, or 0 */
	bool timed_out;
	bool shutdown; /* it ended because the guest shut down */
	/*
	 * By the guest's monotonic clock, in ns: from the command's fork to its
	 * reaping, and from the request's arrival to the answer. 0: the agent
	 * is too old to say.
	 */
	uint64_t command_ns, agent_ns;
};

/* Messages for a running command, written whole to its control descriptor. */
struct arcvmm_exec_control {
	uint8_t kind; /* enum arcvmm_exec_order */
	uint8_t zero;
	uint16_t a, b;
};
enum arcvmm_exec_order {
	ARCVMM_EXEC_SIGNAL = 1, /* a: its number */
	ARCVMM_EXEC_RESIZE = 2, /* a: rows, b: columns */
	ARCVMM_EXEC_HANGUP = 3, /* end now: -ECANCELED */
};

/*
 * Run @x over the connection @fd (taken over, also on failure): input from @in
 * (-1: none), output to @out and @err, orders from @control (-1: none), a pipe
 * or socket. Memory is constant whatever the command writes. 0 with *@exit; or
 * -errno, a sentence, and a code of 125 to 127.
 */
ARCVMM_API int arcvmm_exec_run(int fd, const struct arcvmm_exec *x, int in,
			       int out, int err, int control,
			       struct arcvmm_exit *exit,
			       struct arcvmm_error *e);

enum {
	ARCVMM_COPY_OWNER = 1 << 0, /* keep uid and gid */
	ARCVMM_COPY_FOLLOW = 1 << 1, /* copy what symbolic links point to */
};

/*
 * Copy a file or tree of the host into the guest, or back: with mode, times,
 * links and holes. Into @to when that is a directory, else under that name. A
 * @from that ends in "/." means the contents of that directory. @bytes (when
 * not NULL) gets how much data there was. @fd is taken over.
 */
ARCVMM_API int arcvmm_copy_to(int fd, const char *from, const char *to,
			      unsigned flags, uint64_t *bytes,
			      struct arcvmm_error *e);
ARCVMM_API int arcvmm_copy_from(int fd, const char *from, const char *to,
				unsigned flags, uint64_t *bytes,
				struct arcvmm_error *e);

/* Is an agent of our version there? @fd is taken over, here and below. */
ARCVMM_API int arcvmm_agent_ping(int fd, struct arcvmm_error *e);
/* Numbers of the guest, lines "name value", in *@text: free() it. */
ARCVMM_API int arcvmm_agent_stats(int fd, char **text, struct arcvmm_error *e);
/* Power off or reboot in order; after @grace_ms less so. */
ARCVMM_API int arcvmm_agent_power(int fd, bool reboot, unsigned grace_ms,
				  struct arcvmm_error *e);
/* Set the guest's clock to ours. arcvmm_vm_resume() does it by itself. */
ARCVMM_API int arcvmm_agent_sync_time(int fd, struct arcvmm_error *e);
/* The guest kernel's log to @out; with @follow until either side ends. */
ARCVMM_API int arcvmm_agent_log(int fd, bool follow, int out,
				struct arcvmm_error *e);

/* ---- the host ---- */

/* One thing `arcvmm doctor` looked at. */
enum arcvmm_finding_kind {
	ARCVMM_FINDING_OK,
	ARCVMM_FINDING_NOTE, /* works, could be better */
	ARCVMM_FINDING_PROBLEM, /* something will not work */
};
typedef void arcvmm_finding_fn(void *ctx, enum arcvmm_finding_kind kind,
			       const char *subject, const char *text,
			       const char *advice);
/*
 * Look at this host and report each finding; @advice is NULL when there is
 * nothing to do. Returns how many problems there are. @fn may block.
 */
ARCVMM_API int arcvmm_doctor(arcvmm_finding_fn *fn, void *ctx);

/*
 * The kernel command line words the library adds by itself: word, and why it
 * is there. NULL past the last.
 */
ARCVMM_API const char *arcvmm_cmdline_word(unsigned i, const char **why);

#ifdef __cplusplus
}
#endif

#endif
