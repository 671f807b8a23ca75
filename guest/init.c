/*
 * Theory of operation
 *
 * Process 1 sets the guest up in a straight line (mounts, modules, console,
 * root), then has one of three orders:
 *   - a command: it runs on the console with job control; its end is the end
 *     of the guest, its status is reported;
 *   - none: the root's own init (systemd, say) takes our place as process 1;
 *   - serve: the agent alone decides.
 * While it is process 1 it sleeps in one poll() until a child ends, somebody
 * signals it, the power button is pressed or the host asks it to stop.
 *
 * Nothing here may end process 1, which would panic the kernel: what fails is
 * said on the console and to the host, and the guest powers off.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <net/if.h>

#include "agent.h"
#include "config.h"
#include "modules.h"
#include "netlink.h"
#include "report.h"
#include "root.h"
#include "spawn.h"
#include "util.h"

#define CONFIG	     "/.arcvmm/config"
#define CONFIG_MAX   (4u << 20)
#define STOP_MS	     5000 /* for a command to end when asked to */
#define KILL_MS	     2000 /* for all others */
#define AGENT_STARTS 100
#define EXIT_SETUP   125 /* what we report when we could not run it */

struct init {
	struct config config;
	struct report report;
	int signals, uevents, acpi; /* fds, or -1 */
	pid_t command, agent; /* 0: none */
	unsigned agent_starts;
	bool stopping, deaf;
	uint64_t stop_end; /* when patience ends */
	int how; /* RB_POWER_OFF or RB_AUTOBOOT */
};

/* ---- the end ---- */

static _Noreturn void shut_down(struct init *in)
{
	uint64_t end;

	/* Give up the terminal first: a SIGHUP is for the session's others. */
	kill(-1, SIGTERM);
	kill(-1, SIGCONT);
	end = boot_ns() + KILL_MS * 1000000ull;
	for (;;) {
		struct pollfd p = { .fd = in->signals, .events = POLLIN };
		struct signalfd_siginfo si;
		uint64_t now;
		pid_t pid;

		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		now = boot_ns();
		if (pid < 0 || now >= end) /* no child left, or late */
			break;
		poll(&p, 1, (int)((end - now) / 1000000) + 1);
		read(in->signals, &si, sizeof(si));
	}
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	tcdrain(1);
	root_quiesce();
	report_last(&in->report,
		    in->how == RB_AUTOBOOT ? "reboot" : "poweroff");
	reboot(in->how);
	/* No power management: stop the CPU, the host sees it halted. */
	reboot(RB_HALT_SYSTEM);
	for (;;)
		pause();
}

static _Noreturn void give_up(struct init *in, const char *what)
{
	say("%s", what);
	report(&in->report, "error", boot_ns(), "%s", what);
	report(&in->report, "exit", boot_ns(), "%d", EXIT_SETUP);
	shut_down(in);
}

/* ---- setting up ---- */

static void read_config(struct init *in)
{
	int fd = open(CONFIG, O_RDONLY | O_CLOEXEC), ret, line = 0;
	char *text = NULL, why[80];
	struct stat st;
	long n = 0;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > CONFIG_MAX ||
	    !(text = malloc((size_t)st.st_size + 1)) ||
	    (n = read_full(fd, text, (size_t)st.st_size)) < 0) {
		free(text);
		if (fd >= 0)
			close(fd);
		give_up(in, "no configuration in " CONFIG);
	}
	close(fd);
	text[n] = 0;
	ret = config_parse(&in->config, text, (size_t)n, &line);
	report_init(&in->report, in->config.status);
	if (ret == 0)
		return;
	snprintf(why, sizeof(why), CONFIG ", line %d: %s", line,
		 ret == -EPROTO ? "another version" : strerror(-ret));
	give_up(in, why);
}

/* The terminal that is the console: a real one, not /dev/console. */
static void find_console(const char *given, char *path, size_t size)
{
	char active[256], *last;

	if (given) {
		snprintf(path, size, "/dev/%s", given);
		if (!access(path, F_OK))
			return;
		say("no console %s", given);
	}
	snprintf(path, size, "/dev/console");
	if (read_text("/sys/class/tty/console/active", active,
		      sizeof(active)) <= 0)
		return;
	/* The last one listed is /dev/console. */
	last = strrchr(chomp(active), ' ');
	snprintf(path, size, "/dev/%s", last ? last + 1 : active);
	if (access(path, F_OK))
		snprintf(path, size, "/dev/console");
}

/*
 * Without a console the kernel starts us with 0, 1 and 2 closed: nothing else
 * may get those numbers.
 */
static void reserve_stdio(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0)
			fd = open("/", O_RDONLY);
	} while (fd >= 0 && fd < 3);
	if (fd >= 3)
		close(fd);
}

/* Our own 0, 1 and 2. Opening must not make it our controlling terminal. */
static void open_console(const char *path)
{
	int fd = open(path, O_RDWR | O_NOCTTY);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		if (fd != i)
			dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void loopback_up(void)
{
	struct ifreq r = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	if (!ioctl(fd, SIOCGIFFLAGS, &r)) {
		r.ifr_flags |= IFF_UP;
		ioctl(fd, SIOCSIFFLAGS, &r);
	}
	close(fd);
}

static void catch_signals(struct init *in)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	in->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	/* Ctrl-Alt-Del comes as SIGINT instead of resetting at once. */
	reboot(RB_DISABLE_CAD);
}

/* ---- orders ---- */

static bool executable(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

/* Become the root's own init; returns when there is none. */
static void hand_over(struct init *in)
{
	static const char *const inits[] = { "/init", "/sbin/init", "/etc/init",
					     "/bin/init" };
	sigset_t none;

	sigemptyset(&none);
	for (size_t i = 0; i < sizeof(inits) / sizeof(*inits); i++) {
		char *argv[] = { (char *)inits[i], NULL };
		char *env[] = { "HOME=/", "TERM=linux",
				"PATH=" SPAWN_DEFAULT_PATH, NULL };

		/* /init is what an initramfs has, not a disk. */
		if ((i == 0 && in->config.root) || !executable(inits[i]))
			continue;
		report(&in->report, "handover", boot_ns(), "%s", inits[i]);
		sigprocmask(SIG_SETMASK, &none, NULL);
		for (char **e = in->config.env; e && *e; e++)
			putenv(*e);
		if (!in->config.env)
			execve(inits[i], argv, env);
		else
			execv(inits[i], argv);
		say("%s: %s", inits[i], strerror(errno));
		catch_signals(in);
	}
}

/* The agent, again if it was killed; but not for ever. */
static void run_agent(struct init *in)
{
	pid_t pid;

	in->agent = 0;
	if (!in->config.agent_port || in->agent_starts++ == AGENT_STARTS)
		return;
	pid = agent_start(in->config.agent_port);
	if (pid < 0) {
		say("agent: %s", strerror((int)-pid));
		report(&in->report, "error", boot_ns(), "agent: %s",
		       strerror((int)-pid));
		return;
	}
	in->agent = pid;
	report(&in->report, "agent", boot_ns(), "%u", in->config.agent_port);
}

static void run_command(struct init *in, const char *console)
{
	static char *shell[] = { "/bin/sh", NULL };
	struct spawn s = {
		.argv = in->config.argv ? in->config.argv : shell,
		.env = in->config.env,
		.cwd = in->config.cwd,
		.user = in->config.user,
		.limits = &in->config.limits,
		.tty = true,
	};
	struct spawn_error why;
	int fd = open(console, O_RDWR | O_NOCTTY | O_CLOEXEC);

	s.in = s.out = s.err = fd < 0 ? 0 : fd;
	in->command = spawn(&s, &why);
	if (fd >= 0)
		close(fd);
	if (in->command > 0) {
		report(&in->report, "command", boot_ns(), "%d",
		       (int)in->command);
		return;
	}
	in->command = 0;
	say("%s", why.text);
	report(&in->report, "error", boot_ns(), "%s", why.text);
	report(&in->report, "exit", boot_ns(), "%d", why.exit);
	shut_down(in);
}

/* ---- being process 1 ---- */

static void ask_stop(struct init *in, int how)
{
	in->how = how;
	if (!in->command)
		shut_down(in);
	if (in->stopping)
		return;
	in->stopping = true;
	in->stop_end = boot_ns() + STOP_MS * 1000000ull;
	kill(-in->command, SIGTERM);
	kill(-in->command, SIGHUP); /* a shell at a terminal heeds only this */
	kill(-in->command, SIGCONT);
}

static void reap(struct init *in)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == in->agent && !in->stopping)
			run_agent(in);
		if (pid != in->command)
			continue;
		in->command = 0;
		if (WIFSIGNALED(status))
			report(&in->report, "exit", boot_ns(), "%d %d",
			       spawn_shell_status(status), WTERMSIG(status));
		else
			report(&in->report, "exit", boot_ns(), "%d",
			       WEXITSTATUS(status));
		shut_down(in);
	}
}

static void read_signals(struct init *in)
{
	struct signalfd_siginfo si;

	while (read(in->signals, &si, sizeof(si)) == sizeof(si)) {
		switch (si.ssi_signo) {
		case SIGUSR1: /* as other inits have it: halt, power off */
		case SIGUSR2:
			ask_stop(in, RB_POWER_OFF);
			break;
		case SIGTERM:
		case SIGINT:
			ask_stop(in, RB_AUTOBOOT);
			break;
		}
	}
	reap(in);
}

static _Noreturn void serve(struct init *in)
{
	for (;;) {
		struct pollfd p[] = {
			{ .fd = in->signals, .events = POLLIN },
			{ .fd = in->deaf ? -1 : in->report.fd,
			  .events = POLLIN },
			{ .fd = in->acpi, .events = POLLIN },
			/* Until the port is there, devices that come. */
			{ .fd = in->report.wanted && in->report.fd < 0
					? in->uevents
					: -1,
			  .events = POLLIN },
		};
		int wait = -1;

		if (in->stopping) {
			uint64_t now = boot_ns();

			if (now >= in->stop_end) {
				kill(-in->command, SIGKILL);
				in->stop_end = now + STOP_MS * 1000000ull;
			}
			wait = (int)((in->stop_end - now) / 1000000) + 1;
		}
		if (poll(p, sizeof(p) / sizeof(*p), wait) < 0 && errno != EINTR)
			say("poll: %s", strerror(errno));
		if (p[0].revents)
			read_signals(in);
		if (p[1].revents & POLLIN && report_stop_asked(&in->report))
			ask_stop(in, RB_POWER_OFF);
		else if (p[1].revents & (POLLHUP | POLLERR))
			in->deaf = true; /* the host has closed its end */
		if (p[2].revents && acpi_power_button(in->acpi))
			ask_stop(in, RB_POWER_OFF);
		if (p[3].revents) {
			uevent_wait(in->uevents, 0);
			report_open(&in->report);
		}
	}
}

_Noreturn void init_run(void)
{
	struct init in = { .signals = -1,
			   .uevents = -1,
			   .acpi = -1,
			   .report.fd = -1,
			   .how = RB_POWER_OFF };
	uint64_t start = boot_ns();
	char console[300], why[200];
	struct config *c = &in.config;
	int n;

	umask(0);
	root_mount_basics();
	reserve_stdio();
	catch_signals(&in);
	read_config(&in);
	report(&in.report, "hello", boot_ns(), "1 %s", ARCVMM_VERSION);
	report(&in.report, "init", start, "%s", "");

	in.uevents = uevent_open();
	n = modules_load_all(c);
	report(&in.report, "modules", boot_ns(), "%d", n);
	in.acpi = acpi_open();
	find_console(c->console, console, sizeof(console));
	open_console(console);
	sethostname(c->hostname ? c->hostname : "arcvmm",
		    strlen(c->hostname ? c->hostname : "arcvmm"));
	loopback_up();
	root_load_filesystems(c);
	if (c->root && root_switch(c, in.uevents, why, sizeof(why)) < 0)
		give_up(&in, why);
	if (root_mount_more(c, why, sizeof(why)) < 0)
		give_up(&in, why);
	report(&in.report, "root", boot_ns(), "%s", c->root ? c->root : "");

	run_agent(&in);
	if (!c->argv && !c->serve)
		hand_over(&in);
	if (!c->serve)
		run_command(&in, console);
	serve(&in);
}
