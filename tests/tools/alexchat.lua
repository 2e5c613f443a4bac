-- Wireshark's eyes for AlexChat: AlexMesh (EtherType 0x88B5, v1.0 nodes too) and AlexStream.
--
-- Install: copy this file into Wireshark's folder of personal Lua plugins (Help > About > Folders); for one run:
--     tshark -X lua_script:tests/tools/alexchat.lua -r tests/tools/sample.pcap
-- Written from the drawings in README.md ("The layers"). Lua of Wireshark 3 to 4.x (5.1 to 5.4).
--
-- To follow a stream:  alexstream.stream == 0  (numbered as they appear; tcp.stream's way). Wireshark lets only
-- dissectors written in C offer its "Follow" window.

if tostring(DissectorTable.get("ethertype"):get_dissector(0x88B5)):upper() == "ALEXMESH" then
    return -- installed, and named on the command line too
end

local mesh = Proto("alexmesh", "AlexMesh")
local stream = Proto("alexstream", "AlexStream")

stream.prefs.check_crc = Pref.bool("Check the CRC", true, "And keep segments that fail out of the analysis")
stream.prefs.relative = Pref.bool("Relative sequence numbers", true, "Counted from the initial number of each side")

local HEADER, HANDSHAKE_FIXED, SEGMENT_FIXED = 23, 20, 36
local WRAP = 4294967296

local TYPES = { [1] = "HANDSHAKE", [2] = "MESSAGE", [3] = "BROADCAST", [4] = "STATUS", [5] = "STREAM" }
local TLVS = { [1] = "HEARD", [2] = "ROUTE", [3] = "REQUEST", [4] = "NAME", [5] = "PAD", [6] = "AUTH", [7] = "PORTS" }
local SERVICES = { [1] = "chat", [2] = "pipe" }
local OPTIONS = { [0] = "Padding", [2] = "Segment size", [5] = "SACK" }
local CRC_STATUS = { [0] = "Bad", [1] = "Good", [2] = "Unverified" } -- numbers as tcp.checksum.status
local BAD, GOOD, UNVERIFIED = 0, 1, 2

-- --- fields ---------------------------------------------------------------------------------------------------------

local function flag(name, label, mask)
    return ProtoField.bool(name, label, 8, { "Set", "Not set" }, mask)
end

local NOBODY = { [7] = "7 (nobody's)" }

local m = {
    version = ProtoField.uint8("alexmesh.version", "Version"),
    type = ProtoField.uint8("alexmesh.type", "Type", base.DEC, TYPES),
    origin = ProtoField.ether("alexmesh.origin", "Origin"),
    dest = ProtoField.ether("alexmesh.dest", "Destination"),
    slot = ProtoField.uint8("alexmesh.slot", "Slot of the program that forwards it", base.DEC, NOBODY, 0xE0),
    ttl = ProtoField.uint8("alexmesh.ttl", "Time to live", base.DEC, nil, 0x1F),
    msg_id = ProtoField.uint64("alexmesh.msg_id", "Message id"),
    text = ProtoField.string("alexmesh.text", "Text", base.UNICODE),
    acked_id = ProtoField.uint64("alexmesh.acked_id", "Acknowledged message id"),
    request_frame = ProtoField.framenum("alexmesh.request_frame", "Answer to", base.NONE, frametype.REQUEST),
    response_time = ProtoField.relative_time("alexmesh.response_time", "Time since the question"),
    padding = ProtoField.bytes("alexmesh.padding", "Ethernet padding"),
    data = ProtoField.bytes("alexmesh.data", "Data"),

    v1 = ProtoField.bool("alexmesh.handshake.v1", "From a v1.0 node"),
    magic = ProtoField.uint8("alexmesh.handshake.magic", "Magic", base.HEX),
    flags = ProtoField.uint8("alexmesh.handshake.flags", "Flags", base.HEX),
    probe = flag("alexmesh.handshake.flags.probe", "PROBE", 1),
    reply = flag("alexmesh.handshake.flags.reply", "REPLY", 2),
    full = flag("alexmesh.handshake.flags.full", "FULL", 4),
    bye = flag("alexmesh.handshake.flags.bye", "BYE", 8),
    own_slot = ProtoField.uint8("alexmesh.handshake.slot", "Slot of the sender", base.DEC, NOBODY, 0x70),
    length = ProtoField.uint16("alexmesh.handshake.length", "Length"),
    ttl0 = ProtoField.uint8("alexmesh.handshake.ttl0", "Time to live at the start"),
    hops = ProtoField.uint8("alexmesh.handshake.hops", "Hops so far"),
    interval = ProtoField.float("alexmesh.handshake.interval", "Interval (seconds)"),
    mtu = ProtoField.uint16("alexmesh.handshake.mtu", "MTU"),
    nonce = ProtoField.uint32("alexmesh.handshake.nonce", "Nonce", base.HEX),
    seq = ProtoField.uint32("alexmesh.handshake.seq", "Sequence number"),
    token = ProtoField.uint32("alexmesh.handshake.token", "Token", base.HEX),
    tlv = ProtoField.bytes("alexmesh.tlv", "TLV"),
    tlv_type = ProtoField.uint8("alexmesh.tlv.type", "Type", base.DEC, TLVS),
    tlv_length = ProtoField.uint16("alexmesh.tlv.length", "Length"),
    heard_mac = ProtoField.ether("alexmesh.heard.mac", "Heard"),
    heard_nonce = ProtoField.uint32("alexmesh.heard.nonce", "Nonce", base.HEX),
    route_dest = ProtoField.ether("alexmesh.route.dest", "Route to"),
    route_seq = ProtoField.uint32("alexmesh.route.seq", "Sequence number"),
    route_metric = ProtoField.uint16("alexmesh.route.metric", "Metric", base.DEC, { [65535] = "retracted" }),
    route_mtu = ProtoField.uint16("alexmesh.route.mtu", "MTU"),
    request_dest = ProtoField.ether("alexmesh.request.dest", "Wanted: a route to"),
    request_seq = ProtoField.uint32("alexmesh.request.seq", "At least sequence number"),
    request_hops = ProtoField.uint8("alexmesh.request.hops", "Hops left"),
    name = ProtoField.string("alexmesh.name", "Name", base.UNICODE),
    port = ProtoField.uint16("alexmesh.port", "Listens on port", base.DEC, SERVICES),
    auth_key = ProtoField.uint8("alexmesh.auth.key", "Key"),
    auth_mac = ProtoField.bytes("alexmesh.auth.mac", "BLAKE2s"),
}
local me = {
    short = ProtoExpert.new("alexmesh.short", "Cut short", expert.group.MALFORMED, expert.severity.ERROR),
    version = ProtoExpert.new("alexmesh.bad_version", "Unknown version", expert.group.PROTOCOL, expert.severity.ERROR),
    type = ProtoExpert.new("alexmesh.bad_type", "Unknown type", expert.group.PROTOCOL, expert.severity.WARN),
    value = ProtoExpert.new("alexmesh.bad_value", "Value not allowed", expert.group.PROTOCOL, expert.severity.WARN),
}

local s = {
    stream = ProtoField.uint16("alexstream.id", "Stream id"),
    index = ProtoField.uint32("alexstream.stream", "Stream index"),
    flags = ProtoField.uint8("alexstream.flags", "Flags", base.HEX),
    syn = flag("alexstream.flags.syn", "SYN", 1),
    ack_flag = flag("alexstream.flags.ack", "ACK", 2),
    fin = flag("alexstream.flags.fin", "FIN", 4),
    data = flag("alexstream.flags.data", "DATA", 8),
    rst = flag("alexstream.flags.rst", "RST", 16),
    push = flag("alexstream.flags.push", "PUSH", 32),
    init = flag("alexstream.flags.init", "INIT", 64),
    reserved = flag("alexstream.flags.reserved", "Reserved", 128),
    words = ProtoField.uint8("alexstream.hdr_words", "Header length (4-byte words)"),
    port = ProtoField.uint16("alexstream.port", "Port", base.DEC, SERVICES),
    length = ProtoField.uint16("alexstream.len", "Payload length"),
    seq = ProtoField.uint32("alexstream.seq", "Sequence number"),
    seq_raw = ProtoField.uint32("alexstream.seq_raw", "Sequence number (raw)"),
    nxtseq = ProtoField.uint32("alexstream.nxtseq", "Next sequence number"),
    ack = ProtoField.uint32("alexstream.ack", "Acknowledgement number"),
    ack_raw = ProtoField.uint32("alexstream.ack_raw", "Acknowledgement number (raw)"),
    window = ProtoField.uint32("alexstream.window", "Window"),
    tag = ProtoField.uint32("alexstream.tag", "Tag (the receiver's initial number)"),
    ts = ProtoField.uint32("alexstream.ts", "Timestamp (names this transmission)"),
    echo = ProtoField.uint32("alexstream.echo", "Timestamp answered"),
    echo_frame = ProtoField.framenum("alexstream.echo_frame", "Caused by", base.NONE, frametype.ACK),
    rtt = ProtoField.relative_time("alexstream.rtt", "Time since then"),
    crc = ProtoField.uint32("alexstream.crc", "CRC-32", base.HEX),
    crc_status = ProtoField.uint8("alexstream.crc.status", "CRC status", base.DEC, CRC_STATUS),
    crc_right = ProtoField.uint32("alexstream.crc.calculated", "Calculated CRC", base.HEX),
    option = ProtoField.bytes("alexstream.option", "Option"),
    option_kind = ProtoField.uint8("alexstream.option.kind", "Kind", base.DEC, OPTIONS),
    option_length = ProtoField.uint8("alexstream.option.len", "Length"),
    segment_size = ProtoField.uint16("alexstream.option.segment_size", "Segment size"),
    sack_left = ProtoField.uint32("alexstream.option.sack_le", "SACK left edge"),
    sack_right = ProtoField.uint32("alexstream.option.sack_re", "SACK right edge"),
    sack_count = ProtoField.uint8("alexstream.option.sack.count", "SACK blocks"),
    payload = ProtoField.bytes("alexstream.payload", "Payload"),
}
local se = {
    short = ProtoExpert.new("alexstream.short", "Cut short", expert.group.MALFORMED, expert.severity.ERROR),
    crc = ProtoExpert.new("alexstream.crc.bad", "Bad CRC", expert.group.CHECKSUM, expert.severity.ERROR),
    flags = ProtoExpert.new("alexstream.bad_flags", "Not allowed", expert.group.PROTOCOL, expert.severity.ERROR),
    option = ProtoExpert.new("alexstream.bad_option", "Bad option", expert.group.MALFORMED, expert.severity.ERROR),
    rst = ProtoExpert.new("alexstream.reset", "Stream reset", expert.group.SEQUENCE, expert.severity.WARN),
    window = ProtoExpert.new("alexstream.zero_window", "Window closed", expert.group.SEQUENCE, expert.severity.WARN),
    again = ProtoExpert.new(
        "alexstream.retransmission", "Retransmission: an old number in a new transmission",
        expert.group.SEQUENCE, expert.severity.NOTE),
    late = ProtoExpert.new(
        "alexstream.out_of_order", "An older transmission than one seen before",
        expert.group.SEQUENCE, expert.severity.NOTE),
    copy = ProtoExpert.new(
        "alexstream.copy", "The same transmission once more: relayed, or duplicated",
        expert.group.SEQUENCE, expert.severity.CHAT),
}

mesh.fields, mesh.experts = m, me
stream.fields, stream.experts = s, se

-- --- memory of one capture ------------------------------------------------------------------------------------------

local questions -- key of a PROBE or MESSAGE -> { frame number, time }
local sessions -- key of an AlexStream -> the latest session of that key
local session_count
local seen -- frame number -> what the first pass found out about it, for later passes

function mesh.init()
    questions, sessions, session_count, seen = {}, {}, 0, {}
end

-- What `find` says of this frame; it runs only once, in the order of the frames.
local function once(pinfo, find)
    if not pinfo.visited or seen[pinfo.number] == nil then
        seen[pinfo.number] = find() or false
    end
    return seen[pinfo.number]
end

local function ask(key, pinfo)
    questions[key] = questions[key] or { pinfo.number, pinfo.abs_ts }
end

local function add_time(tree, frame_field, time_field, question, pinfo)
    tree:add(frame_field, question[1]):set_generated()
    local past = math.max(0, pinfo.abs_ts - question[2])
    local seconds = math.floor(past)
    tree:add(time_field, NSTime.new(seconds, math.floor((past - seconds) * 1e9))):set_generated()
end

-- --- AlexMesh -------------------------------------------------------------------------------------------------------

-- Remote text for the Info column: no control characters, not endless.
local function shown(range, limit)
    local text = range:string(ENC_UTF_8):gsub("%c", ".")
    return #text > limit and text:sub(1, limit):gsub("[\128-\255]*$", "") .. "..." or text
end

-- Where text ends: before the trailing NULs. nil where there is none.
local function text_range(tvb, at)
    local size = #tvb:raw(at):gsub("%z+$", "")
    return size > 0 and tvb(at, size) or nil
end

local function add_items(tree, tvb, at, stop, size, add)
    local count = 0
    while at + size <= stop do
        add(at)
        at, count = at + size, count + 1
    end
    if at < stop then
        tree:add_proto_expert_info(me.short, "The last entry is cut short")
    end
    return count
end

local add_value = {
    [1] = function(tree, tvb, at, stop)
        return " Heard=" .. add_items(tree, tvb, at, stop, 10, function(i)
            local item = tree:add(m.heard_mac, tvb(i, 6))
            item:add(m.heard_nonce, tvb(i + 6, 4))
        end)
    end,
    [2] = function(tree, tvb, at, stop)
        return " Routes=" .. add_items(tree, tvb, at, stop, 14, function(i)
            local item = tree:add(m.route_dest, tvb(i, 6))
            item:add(m.route_seq, tvb(i + 6, 4))
            local metric = tvb(i + 10, 2)
            item:add(m.route_metric, metric)
            item:add(m.route_mtu, tvb(i + 12, 2))
            item:append_text(metric:uint() == 65535 and ", retracted" or ", metric " .. metric:uint())
            if metric:uint() == 0 then
                item:add_proto_expert_info(me.value, "Metric 0 is for the node itself only")
            end
        end)
    end,
    [3] = function(tree, tvb, at, stop)
        return " Requests=" .. add_items(tree, tvb, at, stop, 11, function(i)
            local item = tree:add(m.request_dest, tvb(i, 6))
            item:add(m.request_seq, tvb(i + 6, 4))
            item:add(m.request_hops, tvb(i + 10, 1))
        end)
    end,
    [4] = function(tree, tvb, at, stop)
        tree:add_packet_field(m.name, tvb(at, stop - at), ENC_UTF_8)
        return " Name=" .. shown(tvb(at, stop - at), 40)
    end,
    [5] = function(_, _, at, stop)
        return " Pad=" .. stop - at
    end,
    [6] = function(tree, tvb, at, stop)
        tree:add(m.auth_key, tvb(at, 1))
        if stop > at + 1 then
            tree:add(m.auth_mac, tvb(at + 1, stop - at - 1))
        end
        return " Auth"
    end,
    [7] = function(tree, tvb, at, stop)
        local ports = {}
        add_items(tree, tvb, at, stop, 2, function(i)
            tree:add(m.port, tvb(i, 2))
            ports[#ports + 1] = #ports < 8 and tostring(tvb(i, 2):uint()) or nil
        end)
        return " Ports=" .. table.concat(ports, ",")
    end,
}

-- Returns what the Info column says of the TLVs.
local function dissect_tlvs(tvb, at, stop, tree)
    local info = ""
    while at + 3 <= stop do
        local kind, size = tvb(at, 1):uint(), tvb(at + 1, 2):uint()
        if at + 3 + size > stop then
            tree:add_proto_expert_info(me.short, "A TLV is longer than the payload")
            return info
        end
        local item = tree:add(m.tlv, tvb(at, 3 + size))
        item:set_text((TLVS[kind] or "Unknown TLV " .. kind) .. " (" .. size .. " bytes)")
        item:add(m.tlv_type, tvb(at, 1))
        item:add(m.tlv_length, tvb(at + 1, 2))
        if size > 0 and add_value[kind] then
            local text = add_value[kind](item, tvb, at + 3, at + 3 + size)
            info = #info < 200 and info .. text or info
        end
        at = at + 3 + size
    end
    return info
end

local function add_flags(tree, proto_fields, range, names)
    local item = tree:add(proto_fields.flags, range)
    local value, set = range:uint(), {}
    for bit_index, name in ipairs(names) do
        item:add(proto_fields[name[2]], range)
        if math.floor(value / 2 ^ (bit_index - 1)) % 2 == 1 then
            set[#set + 1] = name[1]
        end
    end
    local text = table.concat(set, ", ")
    item:append_text(" (" .. (text == "" and "none" or text) .. ")")
    return text, item
end

local MESH_FLAGS = { { "PROBE", "probe" }, { "REPLY", "reply" }, { "FULL", "full" }, { "BYE", "bye" } }

-- PROBE and REPLY carry the same token.
local function pair_up(tvb, at, pinfo, tree)
    local flags, token = tvb(at + 1, 1):uint(), tostring(tvb(at + 16, 4))
    local question = once(pinfo, function()
        local from, to = tostring(tvb(2, 6)), tostring(tvb(8, 6))
        if flags % 2 == 1 then
            ask("probe" .. from .. token, pinfo)
        elseif flags % 4 >= 2 then
            return questions["probe" .. to .. token]
        end
    end)
    if question then
        add_time(tree, m.request_frame, m.response_time, question, pinfo)
    end
end

-- Each dissect_... returns where the payload ends (padding follows) and what the Info column says.
local function dissect_handshake(tvb, at, pinfo, tree)
    if at == tvb:len() or tvb(at, 1):uint() == 0 then
        tree:add(m.v1, true):set_generated()
        return at, "v1.0"
    end
    local left = tvb:len() - at
    tree:add(m.magic, tvb(at, 1))
    if tvb(at, 1):uint() ~= 0xA2 then
        tree:add_proto_expert_info(me.value, "Neither empty nor of our kind")
        return tvb:len(), "of unknown kind"
    end
    if left < HANDSHAKE_FIXED then
        tree:add_proto_expert_info(me.short, "A HANDSHAKE has 20 bytes at least")
        return tvb:len(), "cut short"
    end
    local set = add_flags(tree, m, tvb(at + 1, 1), MESH_FLAGS)
    tree:add(m.own_slot, tvb(at + 1, 1))
    local length = tvb(at + 2, 2):uint()
    tree:add(m.length, tvb(at + 2, 2))
    tree:add(m.ttl0, tvb(at + 4, 1))
    local hops = tvb(at + 4, 1):uint() - tvb(14, 1):uint() % 32
    if hops > 0 then
        tree:add(m.hops, hops):set_generated()
    end
    tree:add(m.interval, tvb(at + 5, 1), tvb(at + 5, 1):uint() / 10)
    tree:add(m.mtu, tvb(at + 6, 2))
    tree:add(m.nonce, tvb(at + 8, 4))
    tree:add(m.seq, tvb(at + 12, 4))
    tree:add(m.token, tvb(at + 16, 4))
    if tvb(at + 8, 4):uint() == 0 then
        tree:add_proto_expert_info(me.value, "The nonce is never 0")
    end
    pair_up(tvb, at, pinfo, tree)
    local info = (set == "" and "" or "[" .. set .. "] ") .. "Seq=" .. tvb(at + 12, 4):uint()
    info = info .. (hops > 0 and " Hops=" .. hops or "")
    if length < HANDSHAKE_FIXED or length > left then
        tree:add_proto_expert_info(me.short, "The length says " .. length .. ", there are " .. left .. " bytes")
        return tvb:len(), info .. " cut short"
    end
    return at + length, info .. dissect_tlvs(tvb, at + HANDSHAKE_FIXED, at + length, tree)
end

local function dissect_text(tvb, at, pinfo, tree)
    local range = text_range(tvb, at)
    once(pinfo, function()
        ask("message" .. tostring(tvb(2, 6)) .. tostring(tvb(15, 8):uint64()), pinfo)
    end)
    if not range then
        return at, ""
    end
    tree:add_packet_field(m.text, range, ENC_UTF_8)
    return at + range:len(), shown(range, 200)
end

local function dissect_status(tvb, at, pinfo, tree)
    local range = text_range(tvb, at)
    if not range then
        return at, ""
    end
    tree:add_packet_field(m.text, range, ENC_UTF_8)
    local digits = tvb:raw(at, range:len()):match("^ACK:(%d+)$")
    if digits and (#digits < 20 or #digits == 20 and digits <= "18446744073709551615") then
        local id = UInt64.new(0)
        for digit in digits:gmatch("%d") do
            id = id * 10 + tonumber(digit)
        end
        tree:add(m.acked_id, range, id)
        local question = once(pinfo, function()
            return questions["message" .. tostring(tvb(8, 6)) .. digits]
        end)
        if question then
            add_time(tree, m.request_frame, m.response_time, question, pinfo)
        end
    end
    return at + range:len(), shown(range, 40)
end

-- --- AlexStream -----------------------------------------------------------------------------------------------------

-- LuaBitOp, Lua 5.2's own, or the operators that came with 5.3 (older ones cannot even read them).
local bits = bit or bit32 or load([[return {
    bxor = function(a, b) return a ~ b end, band = function(a, b) return a & b end, rshift = function(a, n) return a >> n end,
}]])()
local band, bxor, rshift = bits.band, bits.bxor, bits.rshift

local CRC = {} -- IEEE 802.3, reflected
for index = 0, 255 do
    local value = index
    for _ = 1, 8 do
        value = band(value, 1) == 1 and bxor(rshift(value, 1), 0xEDB88320) or rshift(value, 1)
    end
    CRC[index] = value
end

local function crc32(...)
    local crc = 0xFFFFFFFF
    for _, data in ipairs({ ... }) do
        for index = 1, #data do
            crc = bxor(rshift(crc, 8), CRC[band(bxor(crc, data:byte(index)), 255)])
        end
    end
    return bxor(crc, 0xFFFFFFFF) % WRAP -- LuaBitOp's numbers have a sign
end

-- Over origin, destination (as they lie in the AlexMesh header) and the segment with its own CRC as zeros.
local function right_crc(tvb, at, size)
    local rest = size > SEGMENT_FIXED and tvb:raw(at + SEGMENT_FIXED, size - SEGMENT_FIXED) or ""
    return crc32(tvb:raw(2, 12), tvb:raw(at, 32), "\0\0\0\0", rest)
end

-- Modulo 2^32: how far `a` is behind `b`, from -2^31 to 2^31 - 1.
local function distance(a, b)
    return (b - a + WRAP / 2) % WRAP - WRAP / 2
end

local STREAM_FLAGS = {
    { "SYN", "syn" }, { "ACK", "ack_flag" }, { "FIN", "fin" }, { "DATA", "data" },
    { "RST", "rst" }, { "PUSH", "push" }, { "INIT", "init" }, { "reserved", "reserved" },
}

-- The numbers of a segment that the analysis needs; `side` 1 is the opener's, 2 the responder's.
local function read_segment(tvb, at)
    local flags = tvb(at + 2, 1):uint()
    local function set(value)
        return math.floor(flags / value) % 2 == 1
    end
    local opener, responder = tostring(tvb(2, 6)), tostring(tvb(8, 6))
    local side = set(64) and 1 or 2
    if side == 2 then
        opener, responder = responder, opener
    end
    local length = tvb(at + 6, 2):uint()
    return {
        key = opener .. responder .. tvb(at, 2):uint(), side = side,
        id = tvb(at, 2):uint(), port = tvb(at + 4, 2):uint(), words = tvb(at + 3, 1):uint(), length = length,
        seq = tvb(at + 8, 4):uint(), ack = tvb(at + 12, 4):uint(), window = tvb(at + 16, 4):uint(),
        tag = tvb(at + 20, 4):uint(), ts = tvb(at + 24, 4):uint(), echo = tvb(at + 28, 4):uint(),
        syn = set(1), acks = set(2), fin = set(4), data = set(8), rst = set(16), reserved = set(128),
        takes = length + (set(1) and 1 or 0) + (set(4) and 1 or 0),
    }
end

local function session_of(g)
    local session = sessions[g.key]
    local opens = g.syn and g.side == 1
    if not session or opens and session.first[1] and session.sure[1] and session.first[1] ~= g.seq then
        session = { index = session_count, first = {}, sure = {}, last = {}, newest = {}, sent = { {}, {} } }
        sessions[g.key] = session
        session_count = session_count + 1
    end
    return session
end

-- The initial numbers: a SYN says its own; the tag is that of the receiver (of a stateless RST, of its sender).
local function learn_numbers(session, g)
    local function learn(side, number)
        session.first[side], session.sure[side] = number, true
    end
    if g.syn then
        learn(g.side, g.seq)
    end
    if g.acks and not session.sure[3 - g.side] then
        learn(3 - g.side, g.tag)
    elseif g.rst and not g.acks then
        learn(g.side, g.tag)
    end
    session.first[g.side] = session.first[g.side] or (g.seq - 1) % WRAP
    session.first[3 - g.side] = session.first[3 - g.side] or (g.ack - 1) % WRAP
end

-- `ts` grows with every transmission, so what is old and what was sent again is certain, not guessed.
local function judge(session, g, pinfo)
    local newest, last = session.newest[g.side], session.last[g.side]
    local stop = (g.seq + g.takes) % WRAP
    local verdict
    if newest and distance(newest, g.ts) <= 0 then
        verdict = newest == g.ts and "copy" or session.sent[g.side][g.ts] and "copy" or "late"
    elseif last and g.takes > 0 and distance(last, stop) <= 0 then
        verdict = "again"
    end
    session.newest[g.side] = (not newest or distance(newest, g.ts) > 0) and g.ts or newest
    session.last[g.side] = (not last or distance(last, stop) > 0) and stop or last
    session.sent[g.side][g.ts] = session.sent[g.side][g.ts] or { pinfo.number, pinfo.abs_ts }
    return verdict
end

local function analyse(g, pinfo)
    local session = session_of(g)
    learn_numbers(session, g)
    return {
        index = session.index,
        own = session.first[g.side],
        other = session.first[3 - g.side],
        verdict = judge(session, g, pinfo),
        cause = g.acks and g.echo ~= 0 and session.sent[3 - g.side][g.echo] or nil,
    }
end

local function add_sack(tree, tvb, at, size, base_ack)
    local info = ""
    for i = at, at + size - 8, 8 do
        local left, right = (tvb(i, 4):uint() - base_ack) % WRAP, (tvb(i + 4, 4):uint() - base_ack) % WRAP
        tree:add(s.sack_left, tvb(i, 4), left)
        tree:add(s.sack_right, tvb(i + 4, 4), right)
        info = info .. " SLE=" .. left .. " SRE=" .. right
    end
    tree:add(s.sack_count, math.floor(size / 8)):set_generated()
    return info
end

-- Returns what the Info column says of the options.
local function dissect_options(tvb, at, stop, tree, base_ack)
    local info = ""
    while at < stop and tvb(at, 1):uint() ~= 0 do
        local kind = tvb(at, 1):uint()
        local size = at + 1 < stop and tvb(at + 1, 1):uint() or 0
        if size < 2 or at + size > stop then
            tree:add_proto_expert_info(se.option, "The length of an option is wrong")
            return info
        end
        local item = tree:add(s.option, tvb(at, size))
        item:set_text("Option: " .. (OPTIONS[kind] or "unknown kind " .. kind))
        item:add(s.option_kind, tvb(at, 1))
        item:add(s.option_length, tvb(at + 1, 1))
        if kind == 2 and size == 4 then
            item:add(s.segment_size, tvb(at + 2, 2))
            info = info .. " MSS=" .. tvb(at + 2, 2):uint()
        elseif kind == 5 and size % 8 == 2 then
            info = info .. add_sack(item, tvb, at + 2, size - 2, base_ack)
        end
        at = at + size
    end
    return info
end

local function check_flags(g, tree)
    local wrong
    if g.reserved then
        wrong = "The reserved flag must be 0"
    elseif g.syn and (g.fin or g.rst or g.data) then
        wrong = "SYN excludes FIN, RST and DATA"
    elseif g.rst and (g.fin or g.data) then
        wrong = "RST excludes FIN and DATA"
    elseif not (g.syn or g.rst or g.acks) then
        wrong = "All but SYN and RST acknowledge"
    elseif g.data ~= (g.length > 0) then
        wrong = "DATA stands where there is a payload, and only there"
    elseif g.id == 0 then
        wrong = "No stream has number 0"
    end
    if wrong then
        tree:add_proto_expert_info(se.flags, wrong)
    end
end

-- Returns BAD, GOOD or UNVERIFIED.
local function check_crc(tvb, at, size, tree)
    local item = tree:add(s.crc, tvb(at + 32, 4))
    local status = UNVERIFIED
    if stream.prefs.check_crc and tvb:len() >= at + size then
        local right = right_crc(tvb, at, size)
        status = right == tvb(at + 32, 4):uint() and GOOD or BAD
        if status == BAD then
            item:add_proto_expert_info(se.crc, string.format("Bad CRC: 0x%08x would be right", right))
            item:add(s.crc_right, tvb(at + 32, 4), right):set_generated()
        end
    end
    item:append_text(" [" .. CRC_STATUS[status]:lower() .. "]")
    tree:add(s.crc_status, tvb(at + 32, 4), status):set_generated()
    return status
end

local VERDICTS = { again = "[Retransmission] ", late = "[Out-of-order] ", copy = "[Copy] " }

local function add_numbers(tree, tvb, at, g, found)
    local seq, ack = (g.seq - found.own) % WRAP, (g.ack - found.other) % WRAP
    local how = stream.prefs.relative and " (relative)" or ""
    tree:add(s.seq, tvb(at + 8, 4), seq):append_text(how)
    tree:add(s.seq_raw, tvb(at + 8, 4))
    tree:add(s.nxtseq, (seq + g.takes) % WRAP):set_generated()
    if g.acks then
        tree:add(s.ack, tvb(at + 12, 4), ack):append_text(how)
    end
    tree:add(s.ack_raw, tvb(at + 12, 4))
    tree:add(s.window, tvb(at + 16, 4))
    tree:add(s.tag, tvb(at + 20, 4))
    tree:add(s.ts, tvb(at + 24, 4))
    tree:add(s.echo, tvb(at + 28, 4))
    return " Seq=" .. seq .. (g.acks and " Ack=" .. ack or "") .. " Win=" .. g.window .. " Len=" .. g.length
end

local function add_verdicts(tree, g, found, pinfo)
    if found.cause then
        add_time(tree, s.echo_frame, s.rtt, found.cause, pinfo)
    end
    if se[found.verdict] then
        tree:add_proto_expert_info(se[found.verdict])
    end
    if g.rst then
        tree:add_proto_expert_info(se.rst)
    elseif g.window == 0 and not g.syn then
        tree:add_proto_expert_info(se.window)
    end
end

local function dissect_segment(tvb, at, pinfo, root)
    pinfo.cols.protocol = "AlexStream"
    local left = tvb:len() - at
    local tree = root:add(stream, left > 0 and tvb(at) or tvb(at - 1, 1))
    if left < SEGMENT_FIXED then
        tree:add_proto_expert_info(se.short, "A segment has 36 bytes at least")
        return tvb:len(), "cut short"
    end
    local g = read_segment(tvb, at)
    local size = g.words * 4 + g.length
    tree:set_len(math.min(size, left))
    tree:add(s.stream, tvb(at, 2))
    local set, flags_item = add_flags(tree, s, tvb(at + 2, 1), STREAM_FLAGS)
    check_flags(g, flags_item)
    tree:add(s.words, tvb(at + 3, 1)):append_text(" (" .. g.words * 4 .. " bytes)")
    tree:add(s.port, tvb(at + 4, 2))
    tree:add(s.length, tvb(at + 6, 2))
    local whole = g.words * 4 >= SEGMENT_FIXED and at + size <= tvb:reported_len()
    if not whole then
        tree:add_proto_expert_info(se.short, "Header and payload do not fit into the frame")
    end
    local status = whole and check_crc(tvb, at, size, tree) or BAD
    local found = { own = 0, other = 0 }
    if status ~= BAD then
        found = once(pinfo, function()
            return analyse(g, pinfo)
        end)
        tree:add(s.index, found.index):set_generated()
        add_verdicts(tree, g, found, pinfo)
    end
    local base = stream.prefs.relative and found or { own = 0, other = 0 }
    local ends = g.side == 1 and g.id .. " → " .. g.port or g.port .. " → " .. g.id
    local info = ends .. " [" .. set .. "]" .. add_numbers(tree, tvb, at, g, base)
    if not whole then
        return tvb:len(), "[Malformed] " .. info
    end
    local start, stop = math.min(at + g.words * 4, tvb:len()), math.min(at + size, tvb:len())
    info = info .. dissect_options(tvb, at + SEGMENT_FIXED, start, tree, base.other)
    if stop > start then
        tree:add(s.payload, tvb(start, stop - start))
    end
    tree:append_text(", " .. ends .. ", Seq " .. (g.seq - base.own) % WRAP .. ", Len " .. g.length)
    return stop, (status == BAD and "[Bad CRC] " or VERDICTS[found.verdict] or "") .. info
end

-- --- the frame ------------------------------------------------------------------------------------------------------

local DISSECTORS = {
    [1] = dissect_handshake, [2] = dissect_text, [3] = dissect_text, [4] = dissect_status, [5] = dissect_segment,
}

function mesh.dissector(tvb, pinfo, root)
    pinfo.cols.protocol = "AlexMesh"
    local tree = root:add(mesh, tvb())
    if tvb:len() < HEADER then
        tree:add_proto_expert_info(me.short, "A frame has 23 bytes at least")
        pinfo.cols.info = "cut short"
        return
    end
    tree:set_len(HEADER)
    local version, kind = tvb(0, 1):uint(), tvb(1, 1):uint()
    tree:add(m.version, tvb(0, 1))
    tree:add(m.type, tvb(1, 1))
    tree:add(m.origin, tvb(2, 6))
    tree:add(m.dest, tvb(8, 6))
    tree:add(m.slot, tvb(14, 1))
    tree:add(m.ttl, tvb(14, 1))
    tree:add(m.msg_id, tvb(15, 8))
    -- Like IP's, these addresses are from end to end; those of the hop are Ethernet's. All zero is everyone.
    local origin, dest = tostring(tvb(2, 6):ether()), tostring(tvb(8, 6):ether())
    pinfo.src = Address.ether(origin)
    pinfo.dst = Address.ether(dest == "00:00:00:00:00:00" and "ff:ff:ff:ff:ff:ff" or dest)
    tree:append_text(", " .. (TYPES[kind] or "type " .. kind) .. ", " .. origin .. " > " .. dest)
    if version ~= 1 then
        tree:add_proto_expert_info(me.version)
        pinfo.cols.info = "version " .. version
        return
    end
    if not DISSECTORS[kind] then
        tree:add_proto_expert_info(me.type)
        pinfo.cols.info = "type " .. kind
        return
    end
    local stop, info = DISSECTORS[kind](tvb, HEADER, pinfo, kind == 5 and root or tree)
    pinfo.cols.info = (kind == 5 and "" or TYPES[kind] .. " ") .. info
    if kind ~= 5 then
        tree:set_len(stop)
    end
    if stop < tvb:len() then
        tree:add(m.padding, tvb(stop))
    end
end

DissectorTable.get("ethertype"):add(0x88B5, mesh)
