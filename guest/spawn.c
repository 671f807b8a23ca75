/*
 * Theory of operation
 *
 * The child does everything that can fail (user, directory, limits, terminal,
 * exec) and tells the parent through a pipe that the exec closes: the parent
 * reads either a struct spawn_error or the end of the file, so it knows that
 * the program runs, and when.
 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/limit.h"
#include "rlimits.h"
#include "user.h"
#include "util.h"

extern char **environ;

static _Noreturn void fail(int fd, int code, int status, const char *what,
			   const char *subject)
{
	struct spawn_error e = { .code = code, .exit = status };
	const char *why = strerror(code);

	if (code == ENOENT && !strcmp(what, "user"))
		why = "the guest knows no such user or group";
	snprintf(e.text, sizeof(e.text), "%s%s%s: %s", what, *what ? " " : "",
		 subject, why);
	write_all(fd, &e, sizeof(e));
	_exit(status);
}

static void default_env(const struct user *u, bool tty)
{
	setenv("PATH", SPAWN_DEFAULT_PATH, 1);
	setenv("HOME", u->home, 1);
	if (u->name[0]) {
		setenv("USER", u->name, 1);
		setenv("LOGNAME", u->name, 1);
	}
	setenv("SHELL", u->shell, 1);
	if (tty)
		setenv("TERM", "linux", 1);
}

static bool is_dir(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

/* As shells do: the reason of the best candidate, and 126 or 127. */
static _Noreturn void exec(int fd, char *const *argv)
{
	const char *path = getenv("PATH"), *name = argv[0];
	char full[4096];
	int why = ENOENT;

	if (strchr(name, '/')) {
		execv(name, argv);
		why = errno;
		if (why == EACCES && is_dir(name))
			why = EISDIR;
	}
	while (!strchr(name, '/') && *name && path) {
		size_t n = strcspn(path, ":");

		snprintf(full, sizeof(full), "%.*s%s%s", (int)n, path,
			 n ? "/" : "", name);
		if (!is_dir(full)) {
			execv(full, argv);
			if (errno != ENOENT && errno != ENOTDIR)
				why = errno;
		}
		path = path[n] ? path + n + 1 : NULL;
	}
	fail(fd, why, why == ENOENT || why == ENOTDIR ? 127 : 126, "", name);
}

static const char *limit_name(int resource)
{
	switch (resource) {
#define X(number, name, unit) \
	case number:          \
		return name;
		AGENT_LIMITS(X)
#undef X
	}
	return "of no resource";
}

static _Noreturn void child(const struct spawn *s, int report)
{
	sigset_t none;
	struct user u;
	int ret;

	setsid();
	/* The three may be each other's numbers: first out of the way. */
	int in = fcntl(s->in, F_DUPFD_CLOEXEC, 3);
	int out = fcntl(s->out, F_DUPFD_CLOEXEC, 3);
	int err = fcntl(s->err, F_DUPFD_CLOEXEC, 3);

	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		fail(report, errno, 125, "", "standard input and output");
	if (s->tty)
		ioctl(0, TIOCSCTTY, 0);

	/* What the agent ignores; handlers go with the exec. */
	signal(SIGPIPE, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);

	ret = user_find(s->user, &u);
	if (ret < 0)
		fail(report, -ret, 125, "user", s->user);
	clearenv();
	if (!s->clean_env)
		default_env(&u, s->tty);
	for (char *const *e = s->env; e && *e; e++)
		putenv(*e);
	for (size_t i = 0; s->limits && i < s->limits->n; i++) {
		int resource = s->limits->v[i].resource;

		if (setrlimit(resource, &s->limits->v[i].value) < 0)
			fail(report, errno, 125, "limit", limit_name(resource));
	}
	ret = user_become(&u);
	if (ret < 0)
		fail(report, -ret, 125, "user", s->user ? s->user : "root");
	if (chdir(s->cwd ? s->cwd : "/") < 0)
		fail(report, errno, 125, "directory", s->cwd);
	exec(report, s->argv);
}

pid_t spawn(const struct spawn *s, struct spawn_error *error)
{
	int report[2];
	pid_t pid;
	long n;

	*error = (struct spawn_error){ .exit = 125 };
	if (pipe2(report, O_CLOEXEC) < 0) {
		error->code = errno;
		snprintf(error->text, sizeof(error->text), "pipe: %s",
			 strerror(errno));
		return -1;
	}
	pid = fork();
	if (pid < 0) {
		error->code = errno;
		snprintf(error->text, sizeof(error->text), "fork: %s",
			 strerror(errno));
		close(report[0]);
		close(report[1]);
		return -1;
	}
	if (!pid) {
		/* Out of the way of 0, 1 and 2. */
		int fd = fcntl(report[1], F_DUPFD_CLOEXEC, 10);

		child(s, fd < 0 ? report[1] : fd);
	}
	close(report[1]);
	n = read_full(report[0], error, sizeof(*error));
	close(report[0]);
	if (n == sizeof(*error)) {
		error->text[sizeof(error->text) - 1] = 0;
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return -1;
	}
	return pid;
}

int spawn_shell_status(int st)
{
	return WIFSIGNALED(st) ? 128 + WTERMSIG(st) : WEXITSTATUS(st);
}
