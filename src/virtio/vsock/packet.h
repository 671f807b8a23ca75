/* The packet header of virtio-vsock (virtio 1.2, 5.10.6): 44 bytes, packed. */
#ifndef ARC_VIRTIO_VSOCK_PACKET_H
#define ARC_VIRTIO_VSOCK_PACKET_H

#include <stdint.h>

#include "base/bytes.h"

#define PKT_HDR_LEN	44u
#define PKT_PAYLOAD_MAX 65536u

enum pkt_op {
	OP_INVALID,
	OP_REQUEST,
	OP_RESPONSE,
	OP_RST,
	OP_SHUTDOWN,
	OP_RW,
	OP_CREDIT_UPDATE,
	OP_CREDIT_REQUEST,
	OP_COUNT,
};

enum {
	SHUT_F_RCV = 1, /* the sender will receive no more */
	SHUT_F_SEND = 2, /* the sender will send no more */
	SHUT_F_BOTH = 3,
	SEQ_F_EOM = 1, /* last fragment of a message */
	SEQ_F_EOR = 2, /* ... which ends a record (MSG_EOR) */
};

struct pkt_hdr {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len; /* of the payload */
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt; /* the sender's receive side */
};

static inline void pkt_get(struct pkt_hdr *h, const uint8_t raw[PKT_HDR_LEN])
{
	*h = (struct pkt_hdr){
		.src_cid = get_le64(raw),
		.dst_cid = get_le64(raw + 8),
		.src_port = get_le32(raw + 16),
		.dst_port = get_le32(raw + 20),
		.len = get_le32(raw + 24),
		.type = get_le16(raw + 28),
		.op = get_le16(raw + 30),
		.flags = get_le32(raw + 32),
		.buf_alloc = get_le32(raw + 36),
		.fwd_cnt = get_le32(raw + 40),
	};
}

static inline void pkt_put(uint8_t raw[PKT_HDR_LEN], const struct pkt_hdr *h)
{
	put_le64(raw, h->src_cid);
	put_le64(raw + 8, h->dst_cid);
	put_le32(raw + 16, h->src_port);
	put_le32(raw + 20, h->dst_port);
	put_le32(raw + 24, h->len);
	put_le16(raw + 28, h->type);
	put_le16(raw + 30, h->op);
	put_le32(raw + 32, h->flags);
	put_le32(raw + 36, h->buf_alloc);
	put_le32(raw + 40, h->fwd_cnt);
}

#endif
