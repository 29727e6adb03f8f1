/* What the parts of the stand-in for Nanos' kernel have of one another.
 *
 * It is a unikernel for QEMU's microvm and one static program, and speaks what a manager of Nanos relies on: the disk's format, the
 * console, the kernel's log on the disk, the exit codes, and the power button. The numbers in it are those of the interfaces: PVH,
 * virtio 1.2 (virtio-mmio version 2), ACPI 6 (a generic event device), TFS version 5, and Linux' system calls on x86-64.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define MIN(a, b) ((a) < (b) ? (a) : (b))

enum {
    SECTOR = 512,
    LARGE_PAGE = 2 << 20, /* all pages are; the kernel is in the first, and the program starts in the second */
    KLOG_BYTES = 4096,
    MAX_PATH = 1024,
    CODE_FAULT = 126,
    CODE_NO_PROGRAM = 127,
};

#define SECOND 1000000000ull

/* -- machine.c */

/* What the processor and entry.S leave on the stack on the way into the kernel. */
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

enum {
    ERROR_NO_ENTRY = 2,
    ERROR_INTERRUPTED = 4,
    ERROR_BAD_FILE = 9,
    ERROR_NO_MEMORY = 12,
    ERROR_FAULT = 14,
    ERROR_DIRECTORY = 21,
    ERROR_INVALID = 22,
    ERROR_TOO_MANY = 24,
    ERROR_NO_TERMINAL = 25,
    ERROR_NO_SPACE = 28,
    ERROR_READ_ONLY = 30,
    ERROR_BROKEN_PIPE = 32,
    ERROR_NO_CALL = 38,
};
enum { VECTOR_TIMER = 32, VECTOR_POWER = 33, VECTOR_SPURIOUS = 47, VECTOR_SYSCALL = 128 };
enum { USER_DATA = 0x1b, USER_CODE = 0x23, INTERRUPTS_ON = 0x202 };

extern uint64_t user_end; /* where the program's memory ends, and the kernel's own begins */

uint64_t now(void);                  /* nanoseconds since the machine was started */
void wait_until(uint64_t moment);    /* returns earlier with any interrupt */
bool take_interrupt(uint64_t vector); /* acknowledges; whether it was a press of the power button */
void *take(size_t bytes);            /* memory of the kernel's own, zeroed, aligned to 16, never given back */
void console(const char *text, size_t length);
void print(const char *format, ...); /* %s, %u, %x, and %t: the time as Nanos' lines have it */
_Noreturn void finish(int code);
_Noreturn void panic(const char *why);
_Noreturn void enter_program(const struct frame *frame);

/* -- virtio.c: a queue is a ring of buffers on offer to a device, and a ring of those that it has used */

enum { QUEUE_LENGTH = 8, DEVICE_CONFIGURATION = 0x100 / 4, BUFFER_GOES_ON = 1, BUFFER_IS_WRITTEN = 2 };

struct buffer {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct queue {
    struct buffer descriptors[QUEUE_LENGTH];
    volatile struct {
        uint16_t flags, index, ring[QUEUE_LENGTH];
    } available;
    volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[QUEUE_LENGTH];
    } used;
    uint16_t seen, number;
    volatile uint32_t *device;
} __attribute__((aligned(16)));

volatile uint32_t *find_device(uint32_t kind, unsigned number);
void start_device(volatile uint32_t *device, struct queue *queues, unsigned count);
void offer(struct queue *queue, uint16_t descriptor);
bool take_used(struct queue *queue, uint32_t *descriptor, uint32_t *length);
void await_used(struct queue *queue);

/* -- network.c: calls that wait end early when they are interrupted */

struct connection;

void start_network(void);
void say_ipv6(void); /* when it is time */
void listen_on(uint16_t port); /* in network byte order */
void wait_for_packets(void);   /* a millisecond, and take what comes meanwhile */
struct connection *waiting_connection(void);
struct connection *accept_connection(bool (*is_interrupted)(void));
size_t receive_data(struct connection *connection, void *data, size_t length, bool (*is_interrupted)(void));
size_t send_data(struct connection *connection, const void *data, size_t length, bool (*is_interrupted)(void));
void close_connection(struct connection *connection);

/* -- disk.c */

struct disk;

struct disk *find_disk(unsigned number);
uint64_t disk_sectors(const struct disk *disk);
void read_sectors(struct disk *disk, uint64_t sector, void *data, size_t count);
void write_sectors(struct disk *disk, uint64_t sector, const void *data, size_t count);

/* -- tfs.c */

enum kind { SYMBOL, TUPLE, VECTOR, INTEGER, STRING };

/* A value of a filesystem's metadata. */
struct value {
    enum kind kind;
    uint32_t number; /* of symbols, tuples and vectors: in the filesystem's dictionary */
    size_t length;   /* of symbols and strings, in bytes */
    union {
        const char *text;
        struct pair *pairs; /* of tuples, and of vectors, where they have no names */
        uint64_t integer;
    };
};

struct pair {
    struct value *name, *value;
    struct pair *next;
};

struct file {
    struct filesystem *filesystem;
    struct value *node;
};

extern struct value *root; /* the root tuple of the root filesystem, once it is mounted */

void mount_all(void);
struct value *get(const struct value *tuple, const char *name);
const char *text_of(const struct value *value); /* with a NUL at its end */
bool is_text(const struct value *value, const char *text);
void join_path(char joined[MAX_PATH], const char *directory, const char *path); /* absolute, without . and .. */
bool find_file(const char *path, struct file *found);                          /* by an absolute path */
bool is_directory(const struct file *file);
uint64_t file_length(const struct file *file);
size_t read_file(const struct file *file, uint64_t offset, void *data, size_t length);
int write_file(const char *path, const void *data, size_t length); /* all of it anew; 0, or minus an error */
void write_klog(int code, const char *text, size_t length);

/* -- linux.c */

_Noreturn void run_program(void);
void trap(struct frame *frame);

/* -- what the compiler calls, too */

void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int byte, size_t length);
int memcmp(const void *a, const void *b, size_t length);
size_t strlen(const char *text);
