/*
 * The wakeup and credit protocol of the vsock worker, in Promela.
 *
 * What may sleep and what must wake it:
 *
 *   worker   on the kick eventfd (the guest's tx ring) and on its socket;
 *            it stops sending at zero credit until a credit packet comes
 *   guest    on the interrupt of its rx ring; it sends data and credit updates
 *            on the tx ring
 *   host     writes bytes into the socket
 *
 * Shared words written by the device go through a store buffer that drains at
 * any later time, or at a full fence: avail_event and the used index. The
 * guest is a correct driver: its stores are followed by a full fence.
 *
 * The oracle: when nothing can move any more, every packet of the guest was
 * taken and every byte of the host was read. Asserted at `timeout`.
 *
 * Options (-D): NTX packets the guest sends by itself, NRX bytes the host
 * writes, WINDOW the guest's receive window, UPDATES=0 for a guest that sends no
 * credit updates (needs WINDOW >= NRX): without its traffic a lost kick has
 * nobody to hide behind.
 *
 * Mutants (-D), each of which must fail:
 *   NO_FENCE       I2: no fence between avail_event and the second look
 *   NO_RECHECK     I2: no second look
 *   LATE_DRAIN     I1: the eventfd is drained after its ring was looked at
 *   NO_REARM       I4: the socket is left at EAGAIN without re-arming
 *   NO_CREDIT_WAKE I5: a credit packet does not make the connection ready
 *   NO_USED_FENCE  I7: no fence between the used index and used_event
 *   NO_UPDATE      I6 (of the guest here): no update at zero free space
 */
#ifndef NTX
#define NTX 3
#endif
#ifndef NRX
#define NRX 3
#endif
#ifndef WINDOW
#define WINDOW 2
#endif
#ifndef UPDATES
#define UPDATES 1
#endif

#define DATA	     0
#define NOT_BUFFERED 255
#define RING	     (NTX + NRX + 1)

/* The tx ring: the guest's index, the device's place, what it wants to hear. */
byte avail, next;
byte avail_event; /* as the guest sees it */
byte avail_event_sb = NOT_BUFFERED; /* in the device's store buffer */
byte tx[RING]; /* DATA, or a credit packet: fwd_cnt + 1 */
bool kick; /* the eventfd is readable */

/* The rx ring's used index, and what the guest wants to hear. */
byte used;
byte used_sb = NOT_BUFFERED;
byte used_event;
bool irq;

/* The socket: bytes in it; epoll one-shot. Re-arming re-evaluates the level. */
byte sock;
bool armed = true;

/* The connection. */
bool ready, wait_credit;
byte sent; /* bytes put on the rx ring */
byte fwd; /* as the device knows it */

byte taken; /* bytes the guest's reader took */
byte tx_got; /* DATA packets the device took */
bool tx_lock; /* the driver's, around the tx ring */

#define fence()                                                  \
	if                                                       \
	:: avail_event_sb != NOT_BUFFERED ->                     \
		avail_event = avail_event_sb;                    \
		avail_event_sb = NOT_BUFFERED                    \
	:: else                                                  \
	fi;                                                      \
	if                                                       \
	:: used_sb != NOT_BUFFERED ->                            \
		used = used_sb;                                  \
		used_sb = NOT_BUFFERED                           \
	:: else                                                  \
	fi

/* The store buffer drains when it likes. */
active proctype drain()
{
end:	do
	:: atomic { avail_event_sb != NOT_BUFFERED ->
		avail_event = avail_event_sb;
		avail_event_sb = NOT_BUFFERED }
	:: atomic { used_sb != NOT_BUFFERED ->
		used = used_sb;
		used_sb = NOT_BUFFERED }
	od
}

/* Add a packet; kick if the device asked to hear of this one. */
inline guest_send(what)
{
	atomic { !tx_lock -> tx_lock = true };
	atomic { tx[avail] = what; avail++ }; /* and a full fence */
	if
	:: avail_event == avail - 1 -> kick = true
	:: else
	fi;
	tx_lock = false
}

active proctype guest_writer()
{
	byte i;

	for (i : 1 .. NTX) {
		guest_send(DATA)
	}
}

active proctype guest_reader()
{
	byte last, told;

end:	do
	:: last < NRX ->
		do
		:: last < used ->
			atomic { last++; taken++ };
#if UPDATES
#ifdef NO_UPDATE
			skip
#else
			/* Tell at zero free space (at the latest). */
			if
			:: taken - told >= WINDOW ->
				told = taken;
				guest_send(taken + 1)
			:: taken - told < WINDOW && taken - told > 0 ->
				if
				:: told = taken; guest_send(taken + 1)
				:: skip
				fi
			fi
#endif
#endif
		:: else -> break
		od;
		/* Ask for an interrupt, fence, look again. */
		used_event = last;
		if
		:: used != last
		:: else ->
			irq; /* sleep */
			irq = false
		fi
	:: else -> break
	od
}

active proctype host_writer()
{
	byte i;

	for (i : 1 .. NRX) {
		sock++
	}
}

/* The used index moves by one; interrupt if the guest waits for it. */
inline publish()
{
	byte was;

	atomic {
		was = (used_sb == NOT_BUFFERED -> used : used_sb);
		used_sb = was + 1
	};
#ifndef NO_USED_FENCE
	atomic { fence() };
#endif
	if
	:: used_event == was -> irq = true
	:: else
	fi
}

inline take_packets()
{
	do
	:: next < avail ->
		if
		:: tx[next] == DATA -> tx_got++
		:: else ->
			fwd = tx[next] - 1;
			if
			:: wait_credit ->
#ifndef NO_CREDIT_WAKE
				wait_credit = false;
				ready = true
#else
				skip
#endif
			:: else
			fi
		fi;
		next++
	:: else ->
		avail_event_sb = next;
#ifndef NO_FENCE
		atomic { fence() };
#endif
#ifdef NO_RECHECK
		break
#else
		if
		:: next < avail /* came meanwhile: on */
		:: else -> break
		fi
#endif
	od
}

inline serve_socket()
{
	do
	:: ready && sent - fwd == WINDOW -> ready = false; wait_credit = true
	:: ready && sent - fwd < WINDOW && sock > 0 ->
		sock--;
		sent++;
		publish()
	:: ready && sent - fwd < WINDOW && sock == 0 -> /* EAGAIN */
		ready = false;
#ifndef NO_REARM
		armed = true
#endif
	:: !ready -> break
	od
}

active proctype worker()
{
	bool kicked;

end:	do
	:: atomic { kick || (armed && sock > 0 && !ready && !wait_credit) ->
		kicked = kick;
		if
		:: armed && sock > 0 -> armed = false; ready = true
		:: else
		fi };
#ifndef LATE_DRAIN
		if
		:: kicked -> kick = false; take_packets()
		:: else
		fi;
#else
		if
		:: kicked -> take_packets(); kick = false
		:: else
		fi;
#endif
		serve_socket()
	od
}

active proctype oracle()
{
	timeout;
	assert(next == avail && tx_got == NTX);
	assert(taken == NRX && sock == 0)
}
