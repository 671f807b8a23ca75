/*
 * stopwatch [-k] PREFIX CMD ARG...
 *
 * Run CMD, wait for a line of its output that begins with PREFIX, and print
 * nanoseconds from just before fork: "line NS end NS status N <the line>". -k
 * kills CMD at the line. The rest of the output goes to stderr. Static and
 * small, for the L1 host.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
	char line[1024], found[1024] = "";
	uint64_t begun, at = 0, end;
	int fd[2], status, kill_it = 0;
	FILE *f;
	pid_t pid;

	if (argc > 1 && !strcmp(argv[1], "-k")) {
		kill_it = 1;
		argv++;
		argc--;
	}
	if (argc < 3 || pipe(fd))
		return 2;
	begun = now();
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY);

		dup2(null, 0);
		dup2(fd[1], 1);
		dup2(fd[1], 2);
		close(fd[0]);
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	close(fd[1]);
	f = fdopen(fd[0], "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (!at && !strncmp(line, argv[1], strlen(argv[1]))) {
			at = now();
			line[strcspn(line, "\r\n")] = 0;
			memcpy(found, line, sizeof(found));
			if (kill_it)
				kill(pid, SIGKILL);
		} else {
			fputs(line, stderr);
		}
	}
	waitpid(pid, &status, 0);
	end = now();
	printf("line %lld end %lld status %d %s\n",
	       at ? (long long)(at - begun) : -1, (long long)(end - begun),
	       WIFEXITED(status) ? WEXITSTATUS(status) : -1, found);
	return at ? 0 : 1;
}
