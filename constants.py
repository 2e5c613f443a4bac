"""Every number of the stack in one place: wire codes, limits and timers, each with its unit and its reason.

Times are seconds and sizes are bytes unless the comment says otherwise.
"""

# --- L2: Ethernet ---------------------------------------------------------------------------------------------------
ETHERTYPE = 0x88B5  # IEEE 802 Local Experimental EtherType 1
ETHERNET_HEADER_BYTES = 14
ADDRESS_BYTES = 6
BROADCAST_ADDRESS = b"\xff" * ADDRESS_BYTES  # Ethernet destination of floods and periodic HANDSHAKEs
EVERYONE = b"\x00" * ADDRESS_BYTES  # AlexMesh `dest` of what is for every node
ETHERNET_MTU = 1500  # what every Ethernet carries; a v1.0 node is assumed to take no more
RECEIVE_BATCH = 64  # frames read before timers and the application get their turn
SOCKET_BUFFER_BYTES = 16 << 20  # 14 563 full frames, windows of 39 streams; the 64 KiB default holds 57, less than one
BPF_BUFFER_BYTES = 512 << 10  # of a BPF device: what every BSD grants
SEND_BUFFER_BYTES = 512 << 10  # one window of a stream; more would only be delay in front of a slow card
KEPT_BYTES = 32 << 20  # of freed memory that a process keeps, at most
BACKLOG_FRAMES = 256  # kept while a card takes no more, drop-tail
BLOCKED_RETRY, BLOCKED_RETRY_MAX = 0.001, 0.064  # after ENOBUFS or EAGAIN, doubled: no busy loop, and no long pause
BLOCKED_TRIES = 3  # of one frame; if a shorter one gets through then, its size is to blame
BLOCKED_PATIENCE = 0.25  # a card that takes nothing for so long has no carrier, or its frames are stale
LOOK_SECONDS = 1e-3  # a caller that goes on writing looks for frames so often
SPIN_SECONDS = 200e-6  # look for frames so long before sleeping: an answer takes 40 to 60 us
SPIN_RECENT = 1e-3  # if some came so lately
SPIN_CROWDED = 50e-6  # a processor given up for so long is wanted by others: who moves much data then sleeps,
CROWDED_SECONDS, CROWDED_BATCH = 0.05, 8  # for so long, if so many frames came at once (a conversation has one or two)
LINK_RETRY = 0.5  # how often to look whether an interface that went down is back

# --- L3: AlexMesh ---------------------------------------------------------------------------------------------------
MESH_VERSION = 1
MESH_HEADER_BYTES = 23
TYPE_HANDSHAKE, TYPE_MESSAGE, TYPE_BROADCAST, TYPE_STATUS, TYPE_STREAM = 1, 2, 3, 4, 5
TTL_V1 = 5  # v1.0's default, kept for what v1.0 nodes must understand
TTL_ROUTED = 31  # the longest path of a routed frame, in hops: five bits of the ttl octet
NO_SLOT = 7  # of the other three, beside slots 0-6: a frame for `dest` alone, a program that forwards nothing
SLOT_WAIT = (0.2, 0.4)  # before a slot is chosen by what is heard, where no lock gave one: others answer in 0.03
SLOT_HELD = 0.1  # then no other program has chosen the same: the program may forward

HANDSHAKE_MAGIC = 0xA2  # a v1.0 HANDSHAKE is empty and arrives as padding zeros
HANDSHAKE_FIXED_BYTES = 20  # magic .. token, before the first TLV
FLAG_PROBE, FLAG_REPLY, FLAG_FULL, FLAG_BYE = 1, 2, 4, 8
TLV_HEARD, TLV_ROUTE, TLV_REQUEST, TLV_NAME, TLV_PAD, TLV_AUTH, TLV_PORTS = 1, 2, 3, 4, 5, 6, 7
METRIC_UNREACHABLE = 0xFFFF  # a ROUTE with this metric is a retraction
HOP_COST = 10  # metric of one hop; 20 where a quarter of the last HANDSHAKEs was missed

HANDSHAKE_INTERVAL = 5.0  # v1.0's period, times U(0.9, 1.0) against synchronisation
MESSAGE_RETRY_FIRST, MESSAGE_RETRY_MAX = 0.1, 1.0  # 0.1, 0.2, 0.4, 0.8, 1, 1 ... until the STATUS comes
# No more bytes go out because of strangers than they have sent, but for short answers (61 bytes of STATUS for 38 of a
# MESSAGE) and an allowance, which comes back slowly and lets a few newcomers in at any time
CREDIT_BYTES, CREDIT_PER_SECOND = 4096, 64
CREDIT_MIN, CREDIT_MAX = -512, 64 << 10  # answers go out also where nothing is left; what is saved for later is bounded
NEWCOMER_BYTES = 40  # for naming a newcomer in HEARD
INTRODUCTION_BYTES = 150  # on each interface: for telling of it to those who do not hear it, and that it is gone
NEWCOMERS_PER_SECOND, NEWCOMERS_AT_ONCE = 50, 128  # entered as neighbours: each costs some 0.3 ms
SEEN_KEYS_MAX, SEEN_SECONDS = 8192, 10.0  # dedupe of (origin, msg_id): two generations of each
DESTINATIONS_MAX = 4096  # routing table, oldest unused out
NEIGHBOURS_MAX = 512  # per interface
SOURCES_MAX = 4  # Ethernet addresses of one neighbour: it may have several ports on the segment

# How a neighbour is found and lost
HEARD_BYTES, ROUTE_BYTES, TLV_BYTES = 10, 14, 3  # sizes inside a HANDSHAKE
ROUTES_PER_FRAME = 100  # 1440 bytes with the fixed part: one 1500-byte frame
MESH_MTU_MIN = 128  # the least an interface may have: 41 bytes of a stream a frame; who says less is not believed
JITTER = (0.9, 1.0)  # of HANDSHAKE_INTERVAL
START_DELAY = (0.003, 0.03)  # first HANDSHAKE, and the one for a newcomer: one frame answers all of them
MEET_SECONDS = 0.1  # in which two newcomers to a segment will have heard each other
HELLO_GAP = 0.03  # at least, between two HANDSHAKEs to everyone
FULL_HELLOS, HEARD_EVERY = 3, 5  # HEARD is sent three times after a change, then rarely: 50 B/s among 50 nodes
HEARD_GATHER = 0.02  # HEARD in two frames of one burst is one list
OVERDUE_INTERVALS = (1.2, 1.4)  # a neighbour silent for so many of its intervals is probed: idle death in 6 s
HOLD_INTERVALS = 3.5  # then it is forgotten
DELAY_SECONDS = 0.075  # data sent and nothing heard back: probe
CONFIRM_SECONDS = 1.0  # between probes while data flows: finds one-way failures behind reverse traffic
PROBE_TIMEOUT, PROBE_TRIES = 0.05, 3  # or four round trips; one miss makes a neighbour suspect, three dead
MTU_RETRY_SECONDS = 60.0  # larger frames that did not get through are tried again, while data flows (RFC 8899)
ASK_FIRST = 0.1  # a dead neighbour is asked again after 0.1, 0.2, 0.4 .. 5 s
LATE_SECONDS = 0.05  # a probe's timer that runs so late says more about this machine than about the neighbour
LOSSY_COST, LOSSY_MISSES = 20, 2  # metric of a hop that missed two of the last eight HANDSHAKEs
REPLIES_PER_SECOND = 20  # to one neighbour
ANSWERS_PER_SECOND = 100  # to echoes and to REQUESTs for this node, to all together
ASK_QUIET = 1.0  # no answer to an empty directed HANDSHAKE so soon after one of ours: two answerers would never end
BYE_GRACE = 0.5  # a node that said goodbye is the last choice for so long, then forgotten
BYE_QUIET = 5.0  # so long after its BYE no route to a node is asked for
LOST_GRACE = 1.0  # without a route before a node counts as lost: repairs take less
DUPLICATE_QUIET = 10.0  # between two alarms about a duplicate address
SAME_LAN_SECONDS = 20.0  # two interfaces on one segment: evidence comes every 5 s

# Routes
UPDATE_DELAY = (0.002, 0.01)  # of a triggered update: changes gather, and 10 ms a hop are soon enough
UPDATE_GAP = 0.01  # between two of them: one is sent at once, a storm gathers
REQUEST_RETRY, REQUEST_TRIES, REQUEST_AGAIN = 0.25, 4, 1.0  # then at most once a second, when a route is heard
REQUEST_FRESH = 2.0  # so long after a REQUEST its answer is passed on at once
REQUEST_HOPS = 64  # that a REQUEST travels at most
IN_USE_SECONDS = 1.0  # since data was last sent to a destination
ADVERT_SECONDS = 180.0  # 36 HANDSHAKEs; tables of many frames live longer
SOURCE_GC_SECONDS = 660.0  # kept without any route: longer than any advertisement lives (DESTINATIONS_MAX: 615 s)
REQUESTS_PER_SECOND = 4  # passed on for one destination
SEQ_MAX = 0xFFFFFFFF  # a u32: Unix seconds reach it in 2106
CLOCK_MIN = 1577836800  # 2020: a machine whose clock says less has none
AFRESH_SECONDS = 3.0  # between two fresh starts of a node that was lied to
SEQ_JUMP_MAX = 1 << 24  # half a year: what is further ahead is believed last, unless its owner says it
V1_SEQ_SECONDS = 64  # a v1.0 node has no sequence number: any who hear it take Unix time // 64
EVICT_TRIES = 8  # looks for an unused destination when the table is full
SWEEP_SECONDS = 30.0  # between two looks for what has grown old
NAKS_PER_SECOND = 10  # for one destination

# Floods and text
RELAY_DELAY = (0.0, 0.004)  # in which another relay may do it for us
FLOODS_PER_SECOND = 200  # relayed by this node
LOST_FLOODS_PER_SECOND = 10  # of frames whose route was lost
FLOWS_MAX = 1024  # fast paths kept per interface
MESSAGES_MAX = 1024  # texts or echoes that wait for their answer
ECHO_SECONDS = 60.0  # then no answer is expected
NAME_BYTES_MAX, PORTS_MAX = 255, 256  # kept of what a node says of itself: a table of 4096 liars stays small

# --- L4: AlexStream -------------------------------------------------------------------------------------------------
STREAM_HEADER_BYTES = 36
FLAG_SYN, FLAG_ACK, FLAG_FIN, FLAG_DATA, FLAG_RST, FLAG_PUSH, FLAG_INIT = 1, 2, 4, 8, 16, 32, 64
OPTION_SEGMENT_SIZE, OPTION_SACK = 2, 5
PORT_CHAT, PORT_PIPE, PORT_FILE, PORT_CALL = 1, 2, 3, 4
PORT_SECRET = 0x8000  # added to the port of a service for the holders of a secret, so that plain and secret never meet
PROOF_SECONDS = 10.0  # a caller's time to prove that it holds the secret
UNPROVEN_MAX, UNPROVEN_PER_NODE = 64, 8  # callers at a time that have not, of one address; of more the oldest goes
REFUSED_SECONDS = 60.0  # one line about those of one address in so long
SECRET_FRAME_BYTES = 64 << 10  # the longest frame inside TLS
SECRET_UNREAD_BYTES = 256 << 10  # decrypted and not read yet; then the stream under it stops taking
SECRET_FILE_BYTES = 64 << 10  # more is no key and certificate

RTO_INITIAL = 0.2  # before the first round-trip sample
PTO_MIN, PTO_MAX = 0.02, 2.0  # a LAN peer that comes back should be heard soon
PTO_MARGIN = 0.005  # the peer's ACK_DELAY
ACK_DELAY = 0.005  # how long an acknowledgement may wait for company
ACK_EVERY = 4  # data segments that one acknowledgement may wait for: fewer frames, and loss is still seen by count
BURST = 32  # segments sent on one stimulus, beside those that have just left the path
PUSH_BELOW = 8  # a burst that leaves fewer segments flying asks for its acknowledgement
QUEUE_DELAY_MIN, QUEUE_DELAY_MAX = 0.0003, 0.001  # growth of the round trip that shows a queue; a quarter in between
PAUSE_DELAY_MIN, PAUSE_DELAY_MAX = 0.001, 0.002  # growth at which slow start pauses; an eighth in between
QUEUE_SAMPLES = 4  # round trips that must all have grown: a burst delays only its own last segments
REO_MIN = 0.001  # the least reordering window: a quarter of a LAN's round trip is nothing to a scheduler
THRESHOLD = 3  # later transmissions that have arrived make one lost (RFC 9002 section 6.1.1)
SYN_INTERVAL_MAX = 0.5  # 31 tries in SYN_TIMEOUT: at 30 % loss each way one open in 1e9 fails
SYN_TIMEOUT = 15.0  # then nobody answers
USER_TIMEOUT = 180.0  # without progress, and PROBES_MIN unanswered (RFC 1122 wants 100 s or more)
PROBES_MIN = 8  # so a process that was stopped asks again before it gives up
KEEPALIVE, KEEPALIVE_MAX = 15.0, 60.0  # idle time before a probe, and the most between two
KEEPALIVE_PROBES_MIN = 4  # unanswered ones before giving up, so that a program that was stopped asks first
STALLED_PROBES = 4  # silent probes before `Stalled` (about 0.3 s)
PERSISTENT_PROBES = 3  # silent probes that collapse the congestion window
BLACK_HOLE_ROUNDS = 5  # small probe answered and big one not: then the path carries less than we thought
LINGER = 10.0  # TIME_WAIT: five capped PTOs
LINGERING_MAX = 1024  # streams in TIME-WAIT, oldest out
COOKIE_SLOT = 64.0  # a cookie holds for one to two of these: four times SYN_TIMEOUT
COOKIES_MAX = 4096  # spent cookies remembered; when full, a new secret voids them all
BUFFER_BYTES = 512 << 10  # send and receive buffer of a stream
BUFFER_SEGMENTS, BUFFER_BYTES_MAX = 256, 2 << 20  # where segments are larger: a short queue makes small batches
BUFFER_GROWN_MAX = 4 << 20  # where the round trip asks for more
BUFFERS_BYTES, BUFFER_BYTES_MIN = 64 << 20, 32 << 10  # of all streams of a node each way, and what each has for sure
WRITE_STEP = 64 << 10  # room for which a writer that waits is woken up
PIECES_MAX, BYTES_PER_PIECE = 1024, 512  # pieces that wait to be read; out-of-order ones by the buffer's size
PIECE_BYTES = 16 << 10  # to which bytes that wait are gathered
SACKS_MAX, SACKS_WITH_DATA = 16, 3  # blocks on a pure acknowledgement, and beside data
MSS_MIN, MSS_MAX = 64, 65000  # who says less is not believed; the length of a payload is a u16
MSS_BLACK_HOLE_MIN = 512  # below this the size is not halved any more
INITIAL_WINDOW_BYTES = 14600  # ten segments (RFC 6928)
STREAMS_MAX, STREAMS_PER_PEER = 1024, 64  # open at once; a room of 64 needs one to each of the others
PAWS_SECONDS, PAWS_IDLE_SECONDS = 30.0, 900.0  # an older stamp is of an earlier lap; half a lap takes 2147 s
RTT_MAX = 60.0  # an older echo is no sample
SYN_ACKS_PER_SECOND, RESETS_PER_SECOND = 5000, 200  # of a node: what a forger can make it say
CHALLENGES_PER_SECOND = 10  # of a stream (RFC 5961 section 7)

# --- The node -------------------------------------------------------------------------------------------------------
OUTPUT_BYTES = 64 << 10  # that wait for a terminal or pipe; with more, a program takes no more of what it would write
CLOSE_SECONDS = 3.0  # what is not delivered by then is given up when a stream or node is closed
CHANGES_PER_SECOND, CHANGES_AT_ONCE = 20, 256  # in the mesh that are told one by one; of more the number
STRANGE_MAX = 64  # nodes of which is said, once, why nothing comes of them
EVENTS_MAX = 1024  # mesh events kept for an application that does not take them, oldest out
TRACE_TRIES, TRACE_SILENT_MAX = 3, 5  # questions to each hop, and hops in a row without an answer that end a trace
ECHO_RETRY = 0.25  # between two questions to a node that has not answered
SETTLE_SECONDS = 0.5  # in which a new node hears of all others, or a moment longer in a large mesh
FIND_SECONDS = 3.0  # for a node of a given name to show up; the least is SETTLE_SECONDS, in case there are two
CANDIDATES_MAX = 10  # names offered where one is unknown
NO_SUCH_NODE_SECONDS = 4.0  # a node that was not heard of by then, and that floods do not reach, is not there
LEAVE_SECONDS = 0.25  # a relay goes on forwarding after its BYE: the others need some 10 ms a hop to change over

# --- AlexChat -------------------------------------------------------------------------------------------------------
CHAT_LINE_BYTES = 64 << 10  # one JSON object with its newline
SHOWN_CHARACTERS, SHOWN_LINES = 8192, 50  # of one remote message on a terminal
NAME_CHARACTERS = 20  # of a nick: it stands before every line
MARKS_PER_BASE = 4  # combining marks, joiners and selectors on one character; more is a smear over other lines
FILE_NAME_BYTES = 200  # file systems take 255; room for a number where the name is taken
READ_BYTES = 4096  # of stdin at once: what a terminal gives, and in the shortest lines 0.1 MB of JSON
RECEIVE_BYTES = 64 << 10  # of one stream before the others get their turn
QUEUE_BYTES = 64 << 10  # waiting for one stream; above it nothing more is read that would be sent to it
SLOW_SECONDS, PROGRESS_BYTES = 5.0, 4096  # a member that takes less in that time, a pipe does not wait for
ROOM_MAX = 64  # members
ROOM_KEEPALIVE = 5.0  # of silence before a member is asked whether it is there
GONE_SECONDS = 2.0  # without an answer, before that is said of a member
CALL_SECONDS = 5.0  # for who was called, or calls, to say its name
CALLS_AT_ONCE, CALLS_PER_SECOND, CALL_AGAIN = 8, 8, 10.0  # to members that others list; each address so rarely
CALL_LOST, LOST_SECONDS = 30.0, 3600.0  # between two calls to a member that was lost, and for how long
MEMBERS_SECONDS = 1.0  # between two lists of members to one of them
JOIN_SECONDS = 3.0  # before a pipe's first line, for those who are listed in the room
ASK_SECONDS = 1.5  # for the answers of rooms to a newcomer
CHAT_LEAVE_SECONDS = 3.0  # to get the last lines and the farewell across
LINGER_SECONDS = 5.0  # how long a pipe's program listens after its last line
DISCOVER_SECONDS = 1.0  # for the nodes of the mesh to answer, before rooms are asked
LOBBY_SECONDS = 1.0  # between two questions to all nodes while a room is being chosen
WHO_SECONDS = 1.0  # for the answers to /who
WAITING_BYTES = 1 << 20  # for a peer that is away, and not held by its node: then typed lines are refused
RETURN_SECONDS = USER_TIMEOUT  # to call a restarted program again: as long as a stream waits for a silent one
RETRY_SECONDS = 0.5  # between two calls
CROSSING_SECONDS = 2.0  # after our call has succeeded, its may come: openers ask twice a second
ANSWER_SECONDS = 1.0  # after our call was refused, its may come
PEOPLE_MAX = 1024  # rooms that are listed
BELL_SECONDS = 5.0  # between two rings
OFFERS_MAX, OFFERS_PER_NODE = 32, 8  # files offered and not decided about
UPLOADS_MAX, UPLOADS_PER_NODE, UPLOADS_IN_LINE = 16, 4, 64  # served at once; of one node; with those that wait
UPLOAD_STALL_SECONDS = 30.0  # without progress, before one that waits goes first
REQUEST_BYTES, REQUEST_SECONDS = 1024, 10.0  # of the line that asks for a file, and until it is there
UPLOAD_SECONDS = 600.0  # without progress: also the largest file is checked by then
RESUME_SECONDS = 15.0  # to open a new stream for the rest of a file
FILE_PIECE_BYTES, PIECES_PER_TURN = 64 << 10, 16  # read or written at once, before others get their turn
HASH_BYTES = 1 << 20  # read at once
NAMES_TRIED = 1000  # for a file whose name is taken
HISTORY_MAX = 500  # typed lines kept
SEQUENCE_MAX, ANSWER_MAX = 128, 4096  # characters of an escape sequence that a key sends, or a terminal answers
ESCAPE_SECONDS, PASTE_SECONDS = 0.05, 1.0  # after an Esc, before it is a lone one; for the rest of what is begun
CLUSTER_MAX = 64  # characters that may be one to a reader
