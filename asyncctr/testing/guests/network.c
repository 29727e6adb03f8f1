/* The network: enough of ARP, IPv4 and TCP for a server that listens on one port. QEMU's user network loses no packet and keeps
 * their order, so that nothing is sent twice. What comes is looked at while the program waits for it.
 */

#include "kernel.h"

enum { NETWORK = 1, PACKET_BYTES = 2048, SEGMENT_BYTES = 1400, WINDOW = 8192, CONNECTIONS = 8, POLL = SECOND / 1000, IPV6_SECONDS = 2 };
enum { TYPE_IPV4 = 0x0800, TYPE_ARP = 0x0806, PROTOCOL_TCP = 6, FIN = 1, SYN = 2, RESET = 4, PUSH = 8, ACK = 16 };

struct __attribute__((packed)) packet {
    uint8_t virtio[12];
    uint8_t to[6], from[6];
    uint16_t type;
    union {
        struct __attribute__((packed)) {
            uint8_t constant[6];
            uint16_t operation;
            uint8_t sender[6], sender_address[4], target[6], target_address[4];
        } arp;
        struct __attribute__((packed)) {
            uint8_t version, service;
            uint16_t length, id, fragment;
            uint8_t hops, protocol;
            uint16_t checksum;
            uint8_t source[4], destination[4];
            uint16_t source_port, destination_port;
            uint32_t sequence, acknowledged;
            uint8_t offset, flags;
            uint16_t window, tcp_checksum, urgent;
            uint8_t data[SEGMENT_BYTES];
        } ip;
    };
};

enum { LINK_BYTES = 26, ARP_BYTES = LINK_BYTES + 28, IP_BYTES = 20, TCP_BYTES = 20 };

struct connection {
    enum { FREE, OPENING, OPEN, TAKEN } state; /* taken: the program has it */
    bool ended, closed;                        /* by the peer; by the program */
    uint8_t mac[6], address[4];
    uint16_t port; /* the peer's, as it is sent */
    uint32_t sent, acknowledged, received;
    size_t length;
    uint8_t data[WINDOW]; /* what the program has not read */
};

static struct queue queues[2]; /* what comes, and what goes */
static uint8_t incoming[QUEUE_LENGTH][PACKET_BYTES];
static struct packet outgoing;
static struct connection connections[CONNECTIONS];
static uint8_t mac[6], address[4] = {10, 0, 2, 15};
static uint16_t listening; /* as it is sent */
static bool present, said_ipv6;

static uint16_t swap16(uint16_t number) { return __builtin_bswap16(number); }

static uint32_t swap32(uint32_t number) { return __builtin_bswap32(number); }

/* -- What Nanos says of it: the second line, which comes when no other machine has claimed the address, breaks into the lines of a
 * program that runs for so long. */

void start_network(void)
{
    volatile uint32_t *device = find_device(NETWORK, 0);
    if (device == NULL) {
        print("%t NET: no network interface found\n");
        return;
    }
    present = true;
    for (unsigned i = 0; i < sizeof mac; i++)
        mac[i] = ((volatile uint8_t *)&device[DEVICE_CONFIGURATION])[i];
    start_device(device, queues, COUNT(queues));
    for (unsigned i = 0; i < QUEUE_LENGTH; i++) {
        queues[0].descriptors[i] = (struct buffer){(uintptr_t)incoming[i], PACKET_BYTES, BUFFER_IS_WRITTEN, 0};
        offer(&queues[0], i);
    }
    struct value *own = get(root, "ipaddr");
    if (own == NULL)
        own = get(get(root, "en1"), "ipaddr");
    if (own != NULL) {
        memset(address, 0, sizeof address);
        for (size_t i = 0, part = 0; i < own->length && part < sizeof address; i++) {
            if (own->text[i] == '.')
                part++;
            else
                address[part] = address[part] * 10 + own->text[i] - '0';
        }
    }
    print("%t en1: assigned %u.%u.%u.%u\n", address[0], address[1], address[2], address[3]);
}

void say_ipv6(void)
{
    if (!present || said_ipv6 || now() < IPV6_SECONDS * SECOND)
        return;
    said_ipv6 = true;
    print("%t en1: assigned FE80::%x:%x:%x:%x\n", (mac[0] ^ 2) << 8 | mac[1], mac[2] << 8 | 0xff, 0xfe00 | mac[3], mac[4] << 8 | mac[5]);
}

/* -- Sending */

static uint32_t sum(const void *data, size_t length)
{
    const uint8_t *bytes = data;
    uint32_t total = 0;
    for (size_t i = 0; i < length; i++)
        total += i % 2 ? bytes[i] : bytes[i] << 8;
    return total;
}

static uint16_t fold(uint32_t total)
{
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return swap16(~total);
}

static void send_packet(const uint8_t to[6], uint16_t type, size_t length)
{
    memset(outgoing.virtio, 0, sizeof outgoing.virtio);
    memcpy(outgoing.to, to, sizeof mac);
    memcpy(outgoing.from, mac, sizeof mac);
    outgoing.type = swap16(type);
    queues[1].descriptors[0] = (struct buffer){(uintptr_t)&outgoing, length, 0, 0};
    offer(&queues[1], 0);
    await_used(&queues[1]);
}

static void send_segment(struct connection *to, uint8_t flags, const void *data, size_t length)
{
    size_t whole = IP_BYTES + TCP_BYTES + length;
    memset(&outgoing.ip, 0, IP_BYTES + TCP_BYTES);
    outgoing.ip.version = 0x45;
    outgoing.ip.length = swap16(whole);
    outgoing.ip.hops = 64;
    outgoing.ip.protocol = PROTOCOL_TCP;
    memcpy(outgoing.ip.source, address, sizeof address);
    memcpy(outgoing.ip.destination, to->address, sizeof address);
    outgoing.ip.checksum = fold(sum(&outgoing.ip, IP_BYTES));
    outgoing.ip.source_port = listening;
    outgoing.ip.destination_port = to->port;
    outgoing.ip.sequence = swap32(to->sent);
    outgoing.ip.acknowledged = swap32(to->received);
    outgoing.ip.offset = TCP_BYTES / 4 << 4;
    outgoing.ip.flags = flags;
    outgoing.ip.window = swap16(WINDOW - to->length);
    memcpy(outgoing.ip.data, data, length);
    /* The checksum is over the addresses, the protocol and the length, too. */
    outgoing.ip.tcp_checksum =
        fold(sum(outgoing.ip.source, 2 * sizeof address + TCP_BYTES + length) + PROTOCOL_TCP + TCP_BYTES + length);
    to->sent += length + ((flags & (SYN | FIN)) != 0);
    send_packet(to->mac, TYPE_IPV4, LINK_BYTES + whole);
}

/* -- Receiving */

static void answer_arp(const struct packet *packet)
{
    if (packet->arp.operation != swap16(1) || memcmp(packet->arp.target_address, address, sizeof address) != 0)
        return;
    outgoing.arp = packet->arp;
    outgoing.arp.operation = swap16(2);
    memcpy(outgoing.arp.target, packet->arp.sender, sizeof mac + sizeof address);
    memcpy(outgoing.arp.sender, mac, sizeof mac);
    memcpy(outgoing.arp.sender_address, address, sizeof address);
    send_packet(packet->from, TYPE_ARP, ARP_BYTES);
}

static struct connection *find_connection(const struct packet *packet)
{
    struct connection *free = NULL;
    for (struct connection *it = connections; it < connections + CONNECTIONS; it++) {
        if (it->state != FREE && it->port == packet->ip.source_port && !memcmp(it->address, packet->ip.source, sizeof address))
            return it;
        if (it->state == FREE)
            free = it;
    }
    if (free == NULL || !(packet->ip.flags & SYN))
        return NULL;
    *free = (struct connection){.state = OPENING, .port = packet->ip.source_port, .received = swap32(packet->ip.sequence) + 1};
    memcpy(free->mac, packet->from, sizeof mac);
    memcpy(free->address, packet->ip.source, sizeof address);
    send_segment(free, SYN | ACK, NULL, 0);
    return NULL;
}

static void receive_segment(const struct packet *packet)
{
    if (packet->ip.protocol != PROTOCOL_TCP || packet->ip.destination_port != listening || listening == 0)
        return;
    struct connection *from = find_connection(packet);
    if (from == NULL)
        return;
    size_t headers = (packet->ip.version & 15) * 4 + (packet->ip.offset >> 4) * 4, length = swap16(packet->ip.length) - headers;
    const uint8_t *data = (const uint8_t *)&packet->ip + headers;
    uint8_t flags = packet->ip.flags;
    if (flags & RESET) {
        from->ended = true;
        from->state = from->state == TAKEN && !from->closed ? TAKEN : FREE;
        return;
    }
    if (flags & ACK)
        from->acknowledged = swap32(packet->ip.acknowledged);
    if (from->state == OPENING)
        from->state = OPEN;
    if (swap32(packet->ip.sequence) != from->received)
        return;
    length = from->closed ? length : MIN(length, WINDOW - from->length);
    if (!from->closed) {
        memcpy(from->data + from->length, data, length);
        from->length += length;
    }
    from->received += length + ((flags & FIN) != 0);
    from->ended |= flags & FIN;
    if (length > 0 || (flags & FIN))
        send_segment(from, ACK, NULL, 0);
    if (from->ended && from->closed)
        from->state = FREE;
}

static void receive(void)
{
    uint32_t number, length;
    while (present && take_used(&queues[0], &number, &length)) {
        const struct packet *packet = (const void *)incoming[number];
        if (packet->type == swap16(TYPE_ARP))
            answer_arp(packet);
        else if (packet->type == swap16(TYPE_IPV4))
            receive_segment(packet);
        offer(&queues[0], number);
    }
}

void wait_for_packets(void)
{
    wait_until(now() + POLL);
    receive();
}

/* -- What the program does with it */

void listen_on(uint16_t port) { listening = port; }

struct connection *waiting_connection(void)
{
    receive();
    for (struct connection *it = connections; it < connections + CONNECTIONS; it++)
        if (it->state == OPEN)
            return it;
    return NULL;
}

struct connection *accept_connection(bool (*is_interrupted)(void))
{
    struct connection *connection;
    while ((connection = waiting_connection()) == NULL) {
        if (is_interrupted())
            return NULL;
        wait_for_packets();
    }
    connection->state = TAKEN;
    return connection;
}

size_t receive_data(struct connection *connection, void *data, size_t length, bool (*is_interrupted)(void))
{
    while (connection->length == 0 && !connection->ended && !is_interrupted())
        wait_for_packets();
    length = MIN(length, connection->length);
    memcpy(data, connection->data, length);
    connection->length -= length;
    memmove(connection->data, connection->data + length, connection->length);
    if (length > 0)
        send_segment(connection, ACK, NULL, 0); /* there is room again */
    return length;
}

size_t send_data(struct connection *connection, const void *data, size_t length, bool (*is_interrupted)(void))
{
    size_t done = 0;
    while (done < length && !connection->ended && !is_interrupted()) {
        size_t piece = MIN(length - done, SEGMENT_BYTES);
        if (connection->sent - connection->acknowledged + piece > WINDOW) {
            wait_for_packets();
            continue;
        }
        send_segment(connection, ACK | PUSH, (const uint8_t *)data + done, piece);
        done += piece;
    }
    return done;
}

void close_connection(struct connection *connection)
{
    send_segment(connection, ACK | FIN, NULL, 0);
    connection->closed = true;
    if (connection->ended)
        connection->state = FREE;
}
