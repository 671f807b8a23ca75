#include "netlink.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of linux/netlink.h and linux/genetlink.h. */
#define NL_UEVENT	    15
#define NL_GENERIC	    16
#define NLM_REQUEST	    1
#define GENL_CTRL	    16
#define CTRL_GETFAMILY	    3
#define CTRL_FAMILY_ID	    1
#define CTRL_FAMILY_NAME    2
#define CTRL_MCAST_GROUPS   7
#define CTRL_MCAST_GRP_NAME 1
#define CTRL_MCAST_GRP_ID   2
#define SOL_NL		    270
#define NL_ADD_MEMBERSHIP   1
#define NLA_TYPE	    0x3fff

struct nl_addr {
	sa_family_t family;
	uint16_t pad;
	uint32_t pid, groups;
};

struct nl_head {
	uint32_t len;
	uint16_t type, flags;
	uint32_t seq, pid;
	uint8_t cmd, version; /* of generic netlink */
	uint16_t reserved;
};

struct nl_attr {
	uint16_t len, type;
};

static int nl_open(int protocol, uint32_t groups)
{
	struct nl_addr a = { .family = AF_NETLINK, .groups = groups };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	return fd;
}

static bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) > 0;
}

int uevent_open(void)
{
	return nl_open(NL_UEVENT, 1);
}

bool uevent_wait(int fd, int ms)
{
	char buf[4096];

	if (fd < 0 || !readable(fd, ms))
		return false;
	/* Lost messages (ENOBUFS) also mean that something happened. */
	while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	return true;
}

/* The attribute @type among @p .. @end, or NULL. */
static const struct nl_attr *attr(const char *p, const char *end, int type)
{
	while ((size_t)(end - p) >= sizeof(struct nl_attr)) {
		const struct nl_attr *a = (const void *)p;
		size_t len = (a->len + 3u) & ~3u;

		if (a->len < sizeof(*a) || a->len > (size_t)(end - p))
			return NULL;
		if ((a->type & NLA_TYPE) == type)
			return a;
		if (len > (size_t)(end - p))
			return NULL;
		p += len;
	}
	return NULL;
}

/* The id of the first multicast group of the family in @buf. */
static uint32_t mcast_group(const char *buf, size_t len)
{
	const struct nl_attr *groups, *first, *id;
	const char *end = buf + len;

	groups = attr(buf + sizeof(struct nl_head), end, CTRL_MCAST_GROUPS);
	if (!groups || groups->len < sizeof(*groups) + sizeof(*first))
		return 0;
	first = groups + 1; /* nested: groups of attributes */
	if ((const char *)first + first->len > end)
		return 0;
	id = attr((const char *)(first + 1), (const char *)first + first->len,
		  CTRL_MCAST_GRP_ID);
	return id && id->len >= sizeof(*id) + 4 ? *(const uint32_t *)(id + 1)
						: 0;
}

int acpi_open(void)
{
	struct {
		struct nl_head head;
		struct nl_attr attr;
		char name[12];
	} ask = {
		.head = { .len = sizeof(ask),
			  .type = GENL_CTRL,
			  .flags = NLM_REQUEST,
			  .cmd = CTRL_GETFAMILY,
			  .version = 1 },
		.attr = { .len = sizeof(struct nl_attr) + sizeof("acpi_event"),
			  .type = CTRL_FAMILY_NAME },
		.name = "acpi_event",
	};
	char buf[4096] __attribute__((aligned(8)));
	int fd = nl_open(NL_GENERIC, 0);
	uint32_t group = 0;
	ssize_t n;

	if (fd < 0)
		return fd;
	if (send(fd, &ask, sizeof(ask), 0) == sizeof(ask) &&
	    readable(fd, 1000)) {
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n > (ssize_t)sizeof(struct nl_head))
			group = mcast_group(buf, (size_t)n);
	}
	if (group &&
	    !setsockopt(fd, SOL_NL, NL_ADD_MEMBERSHIP, &group, sizeof(group)))
		return fd;
	close(fd);
	return -ENOENT;
}

bool acpi_power_button(int fd)
{
	char buf[1024];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	/* The event names its class: "button/power". */
	return n > 0 && memmem(buf, (size_t)n, "button/power", 12);
}
