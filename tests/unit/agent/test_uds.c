/* The hand-shake on the socket of another process's guest. */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "arcvmm/arcvmm.h"

static struct sockaddr_un sa = { .sun_family = AF_UNIX };

/* Answers one client with @pieces, a moment apart, then hangs up. */
static void *serve(void *arg)
{
	const char *const *pieces = arg;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), fd;
	char line[64];

	unlink(sa.sun_path);
	bind(listener, (struct sockaddr *)&sa, sizeof(sa));
	listen(listener, 1);
	fd = accept(listener, NULL, NULL);
	close(listener);
	if (read(fd, line, sizeof(line)) != 13 ||
	    strncmp(line, "CONNECT 1234\n", 13))
		return (void *)"not the request";
	for (; *pieces; pieces++) {
		usleep(20000);
		send(fd, *pieces, strlen(*pieces), MSG_NOSIGNAL);
	}
	if (strcmp(pieces[-1], "wait"))
		usleep(20000);
	else
		usleep(300000);
	close(fd);
	return NULL;
}

static int connect_to(const char **pieces)
{
	struct arcvmm_error e;
	pthread_t thread;
	void *why;
	int rc;

	pthread_create(&thread, NULL, serve, pieces);
	do /* until it listens */
		rc = arcvmm_uds_connect(sa.sun_path, 1234, 200, &e);
	while (rc == -ENOENT || (rc == -ECONNREFUSED && e.text[0] == 's'));
	if (rc < 0)
		assert_non_null(strstr(e.text, "port 1234 of the guest"));
	if (rc >= 0 && pieces[0]) {
		char buf[64] = "";
		size_t n = 0;
		ssize_t got;

		while ((got = read(rc, buf + n, sizeof(buf) - 1 - n)) > 0)
			n += (size_t)got;
		assert_string_equal(buf, "guest's\nown words");
		close(rc);
	}
	pthread_join(thread, &why);
	assert_null(why);
	return rc;
}

#define ANSWER(...) connect_to((const char *[]){ __VA_ARGS__, NULL })

static void test_hand_shake(void **state)
{
	(void)state;
	assert_true(ANSWER("OK 1073741824\n", "guest's\nown words") >= 0);
	assert_true(ANSWER("O", "K 1", "\nguest's\nown", " words") >= 0);
	assert_true(ANSWER("OK 12\nguest's\nown words") >= 0);
	assert_int_equal(ANSWER("no\n"), -EPROTO);
	assert_int_equal(ANSWER("OK 1", "1111111111111111111111111111111111"),
			 -EPROTO);
	assert_int_equal(ANSWER("OK 1"), -ECONNREFUSED);
	assert_int_equal(ANSWER(""), -ECONNREFUSED);
	assert_int_equal(ANSWER("OK 1", "wait"), -ETIMEDOUT);
}

static void test_nobody(void **state)
{
	char name[200];
	struct arcvmm_error e;

	(void)state;
	assert_int_equal(arcvmm_uds_connect("/nowhere/x", 1, 10, &e), -ENOENT);
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = 0;
	assert_int_equal(arcvmm_uds_connect(name, 1, 10, &e), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hand_shake),
		cmocka_unit_test(test_nobody),
	};
	int failed;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/arcvmm-uds.%d",
		 (int)getpid());
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(sa.sun_path);
	return failed;
}
