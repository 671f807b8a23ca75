/* arcvmm vhost-user-vsock: our vsock device for a guest of another VMM. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static void help(void)
{
	puts("\n"
	     "  --socket S      listen here for the VMM's vhost-user front "
	     "end\n"
	     "  --uds-path P    \"CONNECT port\" to P reaches the guest, which "
	     "reaches P_port\n"
	     "  --guest-cid N   the guest's context ID [3]\n"
	     "  --hairpin       for tests: the guest's connections come back "
	     "to it\n\n"
	     "A guest of QEMU takes:\n"
	     "      -object memory-backend-memfd,id=m,size=512M,share=on\n"
	     "      -numa node,memdev=m -chardev socket,id=c,path=S\n"
	     "      -device vhost-user-vsock-pci,chardev=c\n\n"
	     "SIGUSR1 prints counters and connections to stderr.");
}

static void print_log(void *ctx, enum arcvmm_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	fprintf(stderr, "arcvmm: %s\n", text);
}

/* Until a signal asks us to end. */
static void serve(struct arcvmm_vhost_vsock *s, const sigset_t *set)
{
	int sig;

	while (sigwait(set, &sig) == 0 && sig == SIGUSR1) {
		char *text = arcvmm_vhost_vsock_dump(s);

		fputs(text ? text : "out of memory\n", stderr);
		free(text);
	}
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "uds-path", required_argument, NULL, 'u' },
		{ "guest-cid", required_argument, NULL, 'c' },
		{ "hairpin", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct arcvmm_vhost_vsock_config c = {
		.guest_cid = 3,
		.log = print_log,
		.log_level = ARCVMM_LOG_WARN,
	};
	struct arcvmm_vhost_vsock *s;
	struct arcvmm_error e = { 0 };
	sigset_t set;
	char *end;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			c.socket = optarg;
			break;
		case 'u':
			c.uds_path = optarg;
			break;
		case 'c':
			errno = 0;
			c.guest_cid = strtoull(optarg, &end, 10);
			if (errno || end == optarg || *end)
				return complain("--guest-cid: '%s' is not a "
						"number",
						optarg);
			break;
		case 'h':
			c.hairpin = true;
			break;
		default:
			return EXIT_USAGE; /* getopt said why */
		}
	}
	if (optind < argc)
		return complain("'%s': this verb takes options only",
				argv[optind]);
	if (!c.socket)
		return complain("--socket is missing; see 'arcvmm help "
				"vhost-user-vsock'");
	descriptors_raise();
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (arcvmm_vhost_vsock_create(&s, &c, &e))
		return complain("%s", e.text);
	serve(s, &set);
	arcvmm_vhost_vsock_destroy(s);
	return 0;
}

const struct verb verb_vhost_user_vsock = {
	.name = "vhost-user-vsock",
	.args = "--socket S [--uds-path P] [--guest-cid N] [--hairpin]",
	.summary = "serve the vsock device to a guest of another VMM",
	.run = run,
	.help = help,
};
