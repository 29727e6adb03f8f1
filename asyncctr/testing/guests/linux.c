/* The program: an ELF in ring 3, the system calls of Linux that it needs, and its signals. */

#include "kernel.h"

enum { STACK_BYTES = 1 << 20, RED_ZONE = 128, MAX_DESCRIPTORS = 16, MAX_WRITTEN = 1 << 20, SIGNALS = 64, POWER_SECONDS = 30 };
enum {
    SIGNAL_ILL = 4,
    SIGNAL_TRAP = 5,
    SIGNAL_BUS = 7,
    SIGNAL_FPE = 8,
    SIGNAL_KILL = 9,
    SIGNAL_SEGV = 11,
    SIGNAL_TERM = 15,
    SIGNAL_CHLD = 17,
    SIGNAL_URG = 23,
    SIGNAL_WINCH = 28,
};
enum { FLAG_WRITE = 1, FLAG_WRITE_ONLY = 3, FLAG_CREATE = 0100, FLAG_TRUNCATE = 01000, FLAG_APPEND = 02000 };

struct elf {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, program_headers, section_headers;
    uint32_t flags;
    uint16_t size, program_header_size, program_header_count;
};

struct segment {
    uint32_t type, flags;
    uint64_t offset, address, physical, file_bytes, memory_bytes, alignment;
};

enum { SEGMENT_LOAD = 1, SEGMENT_INTERPRETER = 3, ELF_SHARED = 3 };

struct action {
    uint64_t handler, flags, restorer, mask;
};

/* What a signal's handler has on its stack; its return address is the first. */
struct signal_frame {
    uint64_t restorer, mask;
    struct frame interrupted;
    uint8_t padding[8];
    uint8_t registers[512] __attribute__((aligned(16))); /* of the floating-point unit */
};

struct descriptor {
    enum { CLOSED, CONSOLE, NOTHING, ZEROES, READING, WRITING, SOCKET, CONNECTED } kind;
    struct file file;
    struct connection *connection;
    uint64_t position;
    char *path;    /* of a file that is written, */
    uint8_t *data; /* all of it, which goes to the disk when it is closed */
    uint64_t length;
};

struct vector {
    const uint8_t *data;
    uint64_t length;
};

static struct descriptor descriptors[MAX_DESCRIPTORS];
static char working_directory[MAX_PATH] = "/";
static struct action actions[SIGNALS + 1];
static uint64_t pending, blocked, power_deadline;
static uint64_t heap_start, heap_end, map_start;

static bool same_text(const char *a, const char *b) { return strlen(a) == strlen(b) && !memcmp(a, b, strlen(a)); }

static uint64_t bit(unsigned signal) { return 1ull << (signal - 1); }

static bool is_users(uint64_t address, uint64_t length)
{
    return address >= LARGE_PAGE && address <= user_end && length <= user_end - address;
}

static bool is_users_text(uint64_t address)
{
    for (uint64_t end = address; is_users(end, 1) && end - address < MAX_PATH; end++)
        if (*(const char *)end == '\0')
            return true;
    return false;
}

/* -- Signals */

static _Noreturn void exit_program(int code);

/* QUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ and SYS */
#define DUMPING (bit(3) | bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(11) | bit(24) | bit(25) | bit(31))

static bool is_ignored(unsigned signal)
{
    uint64_t handler = actions[signal].handler;
    return handler == 1 || (handler == 0 && (signal == SIGNAL_CHLD || signal == SIGNAL_URG || signal == SIGNAL_WINCH));
}

static _Noreturn void end_by(unsigned signal)
{
    if (signal != SIGNAL_TERM)
        print("\n*** signal %u received by tid 2, errno 0, code 0\n", signal);
    print(bit(signal) & DUMPING ? "   core dump\n" : "   terminate\n");
    exit_program(signal);
}

static void call_handler(struct frame *frame, unsigned signal)
{
    struct action *action = &actions[signal];
    uint64_t place = ((frame->rsp - RED_ZONE - sizeof(struct signal_frame)) & ~15ull) - 8;
    struct signal_frame *saved = (void *)((place + 15) & ~15ull);
    if (!is_users((uint64_t)saved - 8, sizeof *saved + 8))
        end_by(SIGNAL_SEGV);
    saved->interrupted = *frame;
    saved->mask = blocked;
    __asm__ volatile("fxsave %0" : "=m"(saved->registers));
    blocked |= action->mask | bit(signal);
    frame->rsp = (uint64_t)saved - 8;
    *(uint64_t *)frame->rsp = action->restorer;
    frame->rip = action->handler;
    frame->rdi = signal;
    frame->rsi = frame->rdx = frame->rax = 0;
}

static void return_from_handler(struct frame *frame)
{
    struct signal_frame *saved = (void *)frame->rsp;
    if (!is_users((uint64_t)saved, sizeof *saved))
        end_by(SIGNAL_SEGV);
    *frame = saved->interrupted;
    frame->cs = USER_CODE;
    frame->ss = USER_DATA;
    frame->rflags = (frame->rflags & 0xcd5) | INTERRUPTS_ON;
    blocked = saved->mask;
    __asm__ volatile("fxrstor %0" : : "m"(saved->registers));
}

static void deliver_signals(struct frame *frame)
{
    for (unsigned signal = 1; signal <= SIGNALS && (pending & ~blocked); signal++) {
        if (!(pending & ~blocked & bit(signal)))
            continue;
        pending &= ~bit(signal);
        if (is_ignored(signal))
            continue;
        if (actions[signal].handler == 0)
            end_by(signal);
        call_handler(frame, signal);
    }
}

static bool is_interrupted(void)
{
    for (unsigned signal = 1; signal <= SIGNALS; signal++)
        if ((pending & ~blocked & bit(signal)) && !is_ignored(signal))
            return true;
    return false;
}

/* -- Files */

static struct descriptor *descriptor(uint64_t number)
{
    return number < MAX_DESCRIPTORS && descriptors[number].kind != CLOSED ? &descriptors[number] : NULL;
}

static int64_t flush(struct descriptor *file)
{
    return file->kind == WRITING ? write_file(file->path, file->data, file->length) : 0;
}

static int64_t free_number(void)
{
    for (unsigned number = 0; number < MAX_DESCRIPTORS; number++)
        if (descriptors[number].kind == CLOSED)
            return number;
    return -ERROR_TOO_MANY;
}

static int64_t sys_open(uint64_t name, uint64_t flags)
{
    char path[MAX_PATH];
    struct file found;
    int64_t number = free_number();
    if (number < 0 || !is_users_text(name))
        return number < 0 ? number : -ERROR_FAULT;
    struct descriptor new = {0};
    join_path(path, working_directory, (const char *)name);
    bool exists = find_file(path, &found);
    if (same_text(path, "/dev/null") || same_text(path, "/dev/zero")) {
        new.kind = path[5] == 'n' ? NOTHING : ZEROES;
    } else if (!exists && !(flags & FLAG_CREATE)) {
        return -ERROR_NO_ENTRY;
    } else if (exists && is_directory(&found)) {
        return -ERROR_DIRECTORY;
    } else if (flags & FLAG_WRITE_ONLY) {
        new.kind = WRITING;
        new.path = memcpy(take(strlen(path) + 1), path, strlen(path) + 1);
        new.data = take(MAX_WRITTEN);
        if (exists && !(flags & FLAG_TRUNCATE))
            new.length = read_file(&found, 0, new.data, MAX_WRITTEN);
        new.position = flags & FLAG_APPEND ? new.length : 0;
        int64_t error = flush(&new); /* now, so that it is known now whether it can be */
        if (error < 0)
            return error;
    } else {
        new.kind = READING;
        new.file = found;
    }
    descriptors[number] = new;
    return number;
}

static int64_t sys_close(uint64_t number)
{
    struct descriptor *file = descriptor(number);
    if (file == NULL)
        return -ERROR_BAD_FILE;
    int64_t error = flush(file);
    if (file->kind == CONNECTED)
        close_connection(file->connection);
    file->kind = CLOSED;
    return error;
}

static int64_t sys_read(uint64_t number, uint64_t to, uint64_t length)
{
    struct descriptor *file = descriptor(number);
    if (file == NULL)
        return -ERROR_BAD_FILE;
    if (!is_users(to, length))
        return -ERROR_FAULT;
    if (file->kind == ZEROES) {
        memset((void *)to, 0, length);
        return length;
    }
    if (file->kind == CONNECTED)
        return receive_data(file->connection, (void *)to, length, is_interrupted);
    if (file->kind != READING)
        return 0;
    size_t got = read_file(&file->file, file->position, (void *)to, length);
    file->position += got;
    return got;
}

static int64_t sys_write(uint64_t number, const uint8_t *data, uint64_t length)
{
    struct descriptor *file = descriptor(number);
    if (file == NULL || file->kind == READING)
        return -ERROR_BAD_FILE;
    if (!is_users((uint64_t)data, length))
        return -ERROR_FAULT;
    if (file->kind == CONNECTED) {
        length = send_data(file->connection, data, length, is_interrupted);
        return length > 0 ? (int64_t)length : -ERROR_BROKEN_PIPE;
    }
    if (file->kind == CONSOLE) {
        console((const char *)data, length);
    } else if (file->kind == WRITING) {
        length = MIN(length, MAX_WRITTEN - file->position);
        if (length == 0)
            return -ERROR_NO_SPACE;
        memcpy(file->data + file->position, data, length);
        file->position += length;
        file->length = file->length < file->position ? file->position : file->length;
    }
    return length;
}

static int64_t sys_writev(uint64_t number, uint64_t list, uint64_t count)
{
    const struct vector *vectors = (const void *)list;
    int64_t all = 0;
    if (count > 1024 || !is_users(list, count * sizeof *vectors))
        return -ERROR_FAULT;
    for (uint64_t i = 0; i < count; i++) {
        int64_t done = sys_write(number, vectors[i].data, vectors[i].length);
        if (done < 0)
            return all > 0 ? all : done;
        all += done;
    }
    return all;
}

/* The one kind of socket: it listens on a port, or is a connection to that. */
static int64_t sys_socket(void)
{
    int64_t number = free_number();
    if (number >= 0)
        descriptors[number] = (struct descriptor){.kind = SOCKET};
    return number;
}

static int64_t sys_bind(uint64_t place)
{
    if (!is_users(place, 8))
        return -ERROR_FAULT;
    listen_on(((const uint16_t *)place)[1]);
    return 0;
}

static int64_t sys_accept(uint64_t socket)
{
    struct descriptor *file = descriptor(socket);
    int64_t number = free_number();
    if (number < 0 || file == NULL || file->kind != SOCKET)
        return number < 0 ? number : -ERROR_BAD_FILE;
    struct connection *connection = accept_connection(is_interrupted);
    if (connection == NULL)
        return -ERROR_INTERRUPTED;
    descriptors[number] = (struct descriptor){.kind = CONNECTED, .connection = connection};
    return number;
}

/* struct stat: a console is a character device, a file is one; glibc asks so as to choose how to buffer. */
static int64_t sys_stat(uint64_t number, uint64_t to)
{
    struct descriptor *file = descriptor(number);
    if (file == NULL)
        return -ERROR_BAD_FILE;
    if (!is_users(to, 144))
        return -ERROR_FAULT;
    uint64_t *fields = memset((void *)to, 0, 144);
    bool is_file = file->kind == READING || file->kind == WRITING;
    fields[3] = is_file ? 0100644 : 0020620;
    fields[6] = file->kind == READING ? file_length(&file->file) : file->length;
    fields[7] = 4096;
    return 0;
}

static int64_t sys_access(uint64_t name)
{
    char path[MAX_PATH];
    struct file found;
    if (!is_users_text(name))
        return -ERROR_FAULT;
    join_path(path, working_directory, (const char *)name);
    return find_file(path, &found) ? 0 : -ERROR_NO_ENTRY;
}

static int64_t enter_directory(const char *name)
{
    char path[MAX_PATH];
    struct file found;
    join_path(path, working_directory, name);
    if (!find_file(path, &found) || !is_directory(&found))
        return -ERROR_NO_ENTRY;
    const char *directory = *path ? path : "/";
    memcpy(working_directory, directory, strlen(directory) + 1);
    return 0;
}

static int64_t sys_getcwd(uint64_t to, uint64_t length)
{
    uint64_t needed = strlen(working_directory) + 1;
    if (!is_users(to, length) || length < needed)
        return -ERROR_INVALID;
    memcpy((void *)to, working_directory, needed);
    return needed;
}

/* -- Memory, time and the rest */

static int64_t sys_brk(uint64_t end)
{
    if (end >= heap_start && end <= map_start) {
        if (end > heap_end)
            memset((void *)heap_end, 0, end - heap_end);
        heap_end = end;
    }
    return heap_end;
}

/* Memory alone, below what was mapped before; it is not given back. */
static int64_t sys_mmap(uint64_t length, uint64_t number)
{
    length = (length + 4095) & ~4095ull;
    if ((int32_t)number != -1)
        return -ERROR_INVALID;
    if (length == 0 || length > map_start - heap_end)
        return -ERROR_NO_MEMORY;
    map_start -= length;
    memset((void *)map_start, 0, length);
    return map_start;
}

static int64_t sys_sleep(uint64_t request, bool absolute)
{
    const uint64_t *time = (const void *)request;
    if (!is_users(request, 16))
        return -ERROR_FAULT;
    uint64_t moment = time[0] * SECOND + time[1] + (absolute ? 0 : now());
    while (now() < moment) {
        if (is_interrupted())
            return -ERROR_INTERRUPTED;
        wait_until(moment);
    }
    return 0;
}

/* For one descriptor, which is a socket that listens. */
static int64_t sys_poll(uint64_t list, uint64_t count, int milliseconds)
{
    struct {
        int32_t descriptor;
        int16_t wanted, got;
    } *asked = (void *)list;
    if (count != 1 || !is_users(list, sizeof *asked))
        return -ERROR_FAULT;
    uint64_t moment = milliseconds < 0 ? UINT64_MAX : now() + milliseconds * (SECOND / 1000);
    asked->got = 0;
    while (waiting_connection() == NULL) {
        if (is_interrupted())
            return -ERROR_INTERRUPTED;
        if (now() >= moment)
            return 0;
        wait_for_packets();
    }
    asked->got = asked->wanted;
    return 1;
}

static int64_t sys_pause(void)
{
    while (!is_interrupted())
        wait_until(now() + SECOND);
    return -ERROR_INTERRUPTED;
}

static int64_t sys_clock(uint64_t to)
{
    uint64_t *time = (void *)to, moment = now();
    if (!is_users(to, 16))
        return -ERROR_FAULT;
    time[0] = moment / SECOND;
    time[1] = moment % SECOND;
    return 0;
}

static int64_t sys_sigaction(uint64_t signal, uint64_t new, uint64_t old)
{
    if (signal == 0 || signal > SIGNALS || signal == SIGNAL_KILL)
        return -ERROR_INVALID;
    if ((old && !is_users(old, sizeof *actions)) || (new && !is_users(new, sizeof *actions)))
        return -ERROR_FAULT;
    if (old)
        *(struct action *)old = actions[signal];
    if (new)
        actions[signal] = *(const struct action *)new;
    return 0;
}

static int64_t sys_sigprocmask(uint64_t how, uint64_t new, uint64_t old)
{
    if ((old && !is_users(old, 8)) || (new && !is_users(new, 8)))
        return -ERROR_FAULT;
    uint64_t mask = new ? *(const uint64_t *)new : 0;
    if (old)
        *(uint64_t *)old = blocked;
    if (new)
        blocked = (how == 0 ? blocked | mask : how == 1 ? blocked & ~mask : mask) & ~bit(SIGNAL_KILL);
    return 0;
}

static int64_t sys_kill(uint64_t signal)
{
    if (signal > SIGNALS)
        return -ERROR_INVALID;
    if (signal > 0)
        pending |= bit(signal);
    return 0;
}

static int64_t sys_uname(uint64_t to)
{
    char host[65] = "standin";
    const char *const names[] = {"Linux", host, "5.0-standin", "", "x86_64", ""};
    struct file file;
    if (!is_users(to, 65 * COUNT(names)))
        return -ERROR_FAULT;
    if (find_file("/etc/hostname", &file) && !is_directory(&file)) {
        memset(host, 0, sizeof host);
        size_t length = read_file(&file, 0, host, sizeof host - 1);
        for (size_t i = 0; i < length; i++)
            if (host[i] == '\n')
                host[i] = 0;
    }
    memset((void *)to, 0, 65 * COUNT(names));
    for (unsigned i = 0; i < COUNT(names); i++)
        memcpy((char *)to + 65 * i, names[i], strlen(names[i]));
    return 0;
}

static int64_t sys_random(uint64_t to, uint64_t length)
{
    static uint64_t state;
    if (!is_users(to, length))
        return -ERROR_FAULT;
    for (uint64_t i = 0; i < length; i++) {
        state = (state + now()) * 6364136223846793005ull + 1442695040888963407ull;
        ((uint8_t *)to)[i] = state >> 56;
    }
    return length;
}

static void set_thread_area(uint64_t base)
{
    __asm__ volatile("wrmsr" : : "c"(0xc0000100), "a"((uint32_t)base), "d"((uint32_t)(base >> 32)));
}

static int64_t system_call(struct frame *frame)
{
    uint64_t a = frame->rdi, b = frame->rsi, c = frame->rdx;
    switch (frame->rax) {
    case 0: return sys_read(a, b, c);
    case 1: return sys_write(a, (const uint8_t *)b, c);
    case 2: return sys_open(a, b);
    case 3: return sys_close(a);
    case 5: return sys_stat(a, b);
    case 7: return sys_poll(a, b, c);
    case 9: return sys_mmap(b, frame->r8);
    case 10: return 0; /* mprotect: all memory may be written and run */
    case 11: return 0; /* munmap */
    case 12: return sys_brk(a);
    case 13: return sys_sigaction(a, b, c);
    case 14: return sys_sigprocmask(a, b, c);
    case 15: return_from_handler(frame); return frame->rax;
    case 16: return -ERROR_NO_TERMINAL;
    case 20: return sys_writev(a, b, c);
    case 21: return sys_access(a);
    case 34: return sys_pause();
    case 35: return sys_sleep(a, false);
    case 39: return 2; /* getpid: as Nanos numbers its one process */
    case 41: return sys_socket();
    case 43: return sys_accept(a);
    case 49: return sys_bind(b);
    case 50: return 0; /* listen, which bind did */
    case 54: return 0; /* setsockopt */
    case 60: exit_program(a);
    case 62: return sys_kill(b);
    case 63: return sys_uname(a);
    case 79: return sys_getcwd(a, b);
    case 80: return is_users_text(a) ? enter_directory((const char *)a) : -ERROR_FAULT;
    case 102: case 104: case 107: case 108: return 0; /* the ids of users and groups */
    case 158: return a == 0x1002 ? (set_thread_area(b), 0) : -ERROR_INVALID;
    case 186: return 2;
    case 200: return sys_kill(b);
    case 218: return 2;
    case 228: return sys_clock(b);
    case 230: return sys_sleep(c, b & 1);
    case 231: exit_program(a);
    case 234: return sys_kill(c);
    case 257: return sys_open(b, c);
    case 262: return c && *(const char *)b == '\0' ? sys_stat(a, c) : -ERROR_NO_CALL;
    case 269: return sys_access(b);
    case 318: return sys_random(a, b);
    default: return -ERROR_NO_CALL;
    }
}

static unsigned signal_of(uint64_t vector)
{
    switch (vector) {
    case 0: case 16: case 19: return SIGNAL_FPE;
    case 1: case 3: return SIGNAL_TRAP;
    case 6: return SIGNAL_ILL;
    case 17: return SIGNAL_BUS;
    default: return SIGNAL_SEGV;
    }
}

void trap(struct frame *frame)
{
    if (frame->vector == VECTOR_SYSCALL) {
        int64_t result = system_call(frame);
        frame->rax = result;
    } else if (frame->vector >= VECTOR_TIMER) {
        if (take_interrupt(frame->vector)) {
            pending |= bit(SIGNAL_TERM);
            power_deadline = now() + POWER_SECONDS * SECOND;
        }
        if (power_deadline && now() >= power_deadline)
            exit_program(0); /* as Nanos does with a program that does not mind */
        say_ipv6();
    } else if (frame->cs != USER_CODE) {
        print("kernel fault %u at 0x%x\n", (unsigned)frame->vector, (unsigned)frame->rip);
        panic("the kernel ends");
    } else {
        unsigned signal = signal_of(frame->vector);
        if (actions[signal].handler < 2 || (blocked & bit(signal)))
            end_by(signal);
        pending |= bit(signal);
    }
    if (frame->cs == USER_CODE)
        deliver_signals(frame);
}

/* -- From its start to its end */

static _Noreturn void exit_program(int code)
{
    for (unsigned i = 0; i < MAX_DESCRIPTORS; i++)
        flush(&descriptors[i]);
    finish(code);
}

static _Noreturn void fail(const char *why, const char *path)
{
    print("program startup failed on exec: (result:%s %s)\n", why, path);
    finish(CODE_NO_PROGRAM);
}

/* Put a program where it wants to be; one that is at home anywhere is put to the start. */
static uint64_t load(const struct file *file, const char *path, struct elf *elf, uint64_t *bias)
{
    struct segment segments[16];
    read_file(file, 0, elf, sizeof *elf);
    if (memcmp(elf->ident, "\177ELF\2\1", 6) != 0 || elf->machine != 62 || elf->program_header_count > COUNT(segments))
        fail("not an ELF for x86-64:", path);
    *bias = elf->type == ELF_SHARED ? 2 * LARGE_PAGE : 0;
    read_file(file, elf->program_headers, segments, elf->program_header_count * sizeof *segments);
    for (unsigned i = 0; i < elf->program_header_count; i++) {
        struct segment *segment = &segments[i];
        uint64_t address = segment->address + *bias;
        if (segment->type == SEGMENT_INTERPRETER)
            fail("not a static program:", path);
        if (segment->type != SEGMENT_LOAD)
            continue;
        if (!is_users(address, segment->memory_bytes) || segment->memory_bytes > user_end - STACK_BYTES - address)
            fail("no room in memory for", path);
        if (read_file(file, segment->offset, (void *)address, segment->file_bytes) < segment->file_bytes)
            fail("cut off:", path);
        memset((void *)(address + segment->file_bytes), 0, segment->memory_bytes - segment->file_bytes);
        if (heap_start < address + segment->memory_bytes)
            heap_start = address + segment->memory_bytes;
        if (segment->offset == 0)
            elf->section_headers = address + elf->program_headers; /* where the program finds them */
    }
    return elf->entry + *bias;
}

static uint64_t push_text(uint64_t *top, const char *a, size_t a_length, const char *between, const char *b, size_t b_length)
{
    size_t middle = strlen(between);
    *top -= a_length + middle + b_length + 1;
    char *to = (char *)*top;
    memcpy(to, a, a_length);
    memcpy(to + a_length, between, middle);
    memcpy(to + a_length + middle, b, b_length);
    to[a_length + middle + b_length] = '\0';
    return *top;
}

static size_t count_of(const struct value *value)
{
    size_t count = 0;
    for (struct pair *pair = value ? value->pairs : NULL; pair; pair = pair->next)
        count++;
    return count;
}

/* The stack as the System V ABI wants it at the start: the arguments, the environment, and what else there is to know. */
static uint64_t push_arguments(const struct elf *elf, uint64_t bias)
{
    struct value *arguments = get(root, "arguments"), *environment = get(root, "environment");
    const uint64_t known[] = {3, elf->section_headers, 4, elf->program_header_size, 5, elf->program_header_count, 6, 4096, 9, elf->entry + bias, 23, 0, 25, user_end - 16, 0, 0};
    size_t argument_count = count_of(arguments), all = 1 + argument_count + 1 + count_of(environment) + 1 + COUNT(known);
    uint64_t *list = take(all * sizeof *list), *next = list, top = user_end - 16;
    *next++ = argument_count;
    for (struct pair *pair = arguments ? arguments->pairs : NULL; pair; pair = pair->next)
        *next++ = push_text(&top, pair->value->text, pair->value->length, "", "", 0);
    *next++ = 0;
    for (struct pair *pair = environment ? environment->pairs : NULL; pair; pair = pair->next)
        *next++ = push_text(&top, pair->name->text, pair->name->length, "=", pair->value->text, pair->value->length);
    *next++ = 0;
    memcpy(next, known, sizeof known);
    top = (top - all * sizeof *list) & ~15ull;
    memcpy((void *)top, list, all * sizeof *list);
    return top;
}

_Noreturn void run_program(void)
{
    struct elf elf;
    struct file file;
    uint64_t bias;
    char path[MAX_PATH];
    struct value *directory = get(root, "cwd"), *name = get(root, "program");
    const char *program = name ? text_of(name) : "";
    join_path(path, "/", program);
    if (name == NULL || !find_file(path, &file) || is_directory(&file))
        fail("unable to open program file", program);
    uint64_t entry = load(&file, path, &elf, &bias);
    heap_start = heap_end = (heap_start + 4095) & ~4095ull;
    map_start = user_end - STACK_BYTES;
    if (directory)
        enter_directory(text_of(directory));
    for (unsigned i = 0; i < 3; i++)
        descriptors[i].kind = CONSOLE;
    struct frame frame = {.rip = entry, .cs = USER_CODE, .rflags = INTERRUPTS_ON, .rsp = push_arguments(&elf, bias), .ss = USER_DATA};
    enter_program(&frame);
}
