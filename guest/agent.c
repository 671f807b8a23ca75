/*
 * Theory of operation
 *
 * The listener forks for every connection, so a session has a process, a
 * descriptor table and a memory of its own: none can stall or corrupt another,
 * and one that is killed takes only its command along. Connections are taken
 * from the host (CID 2) only: a guest may reach its own vsock by the loopback
 * transport, and whoever may connect here is root.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"

/* Of linux/vm_sockets.h. */
#define AF_VSOCK_    40
#define CID_ANY	     0xffffffffu
#define CID_HOST     2u
#define SESSIONS_MAX 1000

struct vsock_addr {
	sa_family_t family;
	uint16_t reserved;
	uint32_t port, cid;
	uint8_t zero[4];
};

static void child_ended(int sig)
{
	(void)sig; /* only to end the wait */
}

static void set_up(int listener, sigset_t *awake)
{
	struct sigaction sa = { .sa_handler = child_ended };
	sigset_t child;

	setsid();
	/* Init's own: the console and what is above, but for the listener. */
	for (int fd = 3; fd < 64; fd++)
		if (fd != listener)
			close(fd);
	prctl(PR_SET_NAME, "arcvmm-agent", 0, 0, 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/* A child's end interrupts the wait, and nothing else here. */
	sigaction(SIGCHLD, &sa, NULL);
	sigemptyset(awake);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_SETMASK, &child, NULL);
	/* The memory killer takes others first. */
	write_text("/proc/self/oom_score_adj", "-900");
}

static _Noreturn void session(int fd, int listener, const sigset_t *awake)
{
	close(listener);
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_SETMASK, awake, NULL);
	write_text("/proc/self/oom_score_adj", "0");
	agent_session(fd);
	_exit(0);
}

static _Noreturn void serve(int listener)
{
	unsigned sessions = 0;
	sigset_t awake;

	set_up(listener, &awake);
	for (;;) {
		struct vsock_addr peer = { 0 };
		socklen_t len = sizeof(peer);
		/* When full, take nobody and wait for one to end. */
		struct pollfd p = {
			.fd = sessions < SESSIONS_MAX ? listener : -1,
			.events = POLLIN,
		};
		pid_t pid;
		int fd;

		while (sessions && waitpid(-1, NULL, WNOHANG) > 0)
			sessions--;
		if (ppoll(&p, 1, NULL, &awake) <= 0)
			continue;
		fd = accept4(listener, (struct sockaddr *)&peer, &len,
			     SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		if (peer.cid != CID_HOST) {
			close(fd);
			continue;
		}
		pid = fork();
		if (!pid)
			session(fd, listener, &awake);
		sessions += pid > 0;
		close(fd);
	}
}

pid_t agent_start(unsigned port)
{
	struct vsock_addr a = { .family = AF_VSOCK_,
				.port = port,
				.cid = CID_ANY };
	int fd = socket(AF_VSOCK_, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0);
	pid_t pid;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    listen(fd, 128) < 0) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	pid = fork();
	if (!pid)
		serve(fd);
	close(fd);
	return pid < 0 ? -errno : pid;
}
