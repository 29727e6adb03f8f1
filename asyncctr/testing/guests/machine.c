/* The machine: its interrupts, its clock, its memory, its serial line, and how it ends. */

#include "kernel.h"

#include <stdarg.h>

enum {
    SERIAL = 0x3f8,
    DEBUG_EXIT = 0x501, /* QEMU's isa-debug-exit */
    POWER_PIN = 9,      /* of the interrupt controller: microvm's generic event device */
    POWER_PRESSED = 2,
    SLEEP_S5 = 5 << 2 | 1 << 5,
};

static volatile uint32_t *const local_apic = (void *)0xfee00000;
static volatile uint32_t *const io_apic = (void *)0xfec00000;
static volatile uint32_t *const events = (void *)0xfea00000;
static volatile uint8_t *const sleep_control = (void *)0xfea00200;

enum {
    APIC_END = 0xb0 / 4,
    APIC_SPURIOUS = 0xf0 / 4,
    APIC_TIMER = 0x320 / 4,
    APIC_START = 0x380 / 4,
    APIC_COUNT = 0x390 / 4,
    APIC_DIVIDE = 0x3e0 / 4,
};

/* PVH's hvm_start_info, and its map of the memory. */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, map;
    uint32_t map_entries, reserved;
};
struct map_entry {
    uint64_t start, length;
    uint32_t type, reserved;
};

struct __attribute__((packed)) pointer {
    uint16_t limit;
    uint64_t base;
};

struct gate {
    uint16_t offset_low, selector;
    uint8_t stack, attributes;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

extern uint64_t gdt[], memory_pages[512];
extern const char vectors[], syscall_entry[], stack_end[];

uint64_t user_end;

static uint64_t memory_next, memory_end, started;
static uint64_t cycle_length; /* nanoseconds, in parts of 2^32 */
static struct gate idt[48];
static uint32_t task_state[26];
static char log_text[KLOG_BYTES - 16];
static size_t log_length;

static void out(uint16_t port, uint8_t byte) { __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"(port)); }

static uint8_t in(uint16_t port)
{
    uint8_t byte;
    __asm__ volatile("inb %1, %0" : "=a"(byte) : "Nd"(port));
    return byte;
}

static void set_register(uint32_t number, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t cycles(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* -- Memory */

void *take(size_t bytes)
{
    uint64_t taken = memory_next;
    if (bytes > memory_end - taken)
        panic("the kernel is out of memory");
    memory_next = MIN(memory_end, (taken + bytes + 15) & ~15ull);
    return memset((void *)taken, 0, bytes);
}

/* The program has the lower half of what there is in the first GiB, without the kernel's page; the kernel has the rest. */
static void set_up_memory(const struct start_info *info)
{
    const struct map_entry *map = (const void *)info->map;
    for (uint32_t i = 0; i < info->map_entries; i++)
        if (map[i].type == 1 && map[i].start <= LARGE_PAGE && map[i].start + map[i].length > memory_end)
            memory_end = MIN(map[i].start + map[i].length, COUNT(memory_pages) * (uint64_t)LARGE_PAGE);
    user_end = memory_next = memory_end / 2 / LARGE_PAGE * LARGE_PAGE;
    if (user_end < 8 * LARGE_PAGE)
        panic("the machine needs 32 MiB of memory");
    for (uint64_t page = user_end / LARGE_PAGE; page < COUNT(memory_pages); page++)
        memory_pages[page] &= ~4ull;
}

/* -- Interrupts and the clock */

static void set_up_interrupts(void)
{
    uint64_t state = (uint64_t)task_state;
    *(uint64_t *)&task_state[1] = (uint64_t)stack_end;
    gdt[5] = (sizeof task_state - 1) | (state & 0xffffff) << 16 | 0x89ull << 40 | (state >> 24 & 0xff) << 56;
    gdt[6] = state >> 32;
    __asm__ volatile("ltr %w0" : : "r"(0x28));

    for (unsigned i = 0; i < COUNT(idt); i++) {
        uint64_t way = (uint64_t)vectors + 16 * i;
        idt[i] = (struct gate){way & 0xffff, 0x08, 0, 0x8e, way >> 16 & 0xffff, way >> 32, 0};
    }
    struct pointer pointer = {sizeof idt - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));

    set_register(0xc0000081, 0x0010000800000000); /* the selectors of syscall, */
    set_register(0xc0000082, (uint64_t)syscall_entry);
    set_register(0xc0000084, 0x40700); /* and the flags that it clears: interrupts, direction, trap, alignment */

    out(0x21, 0xff); /* the old interrupt controllers are not used */
    out(0xa1, 0xff);
    local_apic[APIC_SPURIOUS] = 1 << 8 | VECTOR_SPURIOUS;
    local_apic[APIC_TIMER] = VECTOR_TIMER;
    local_apic[APIC_DIVIDE] = 0xb;
    io_apic[0] = 0x10 + 2 * POWER_PIN;
    io_apic[4] = VECTOR_POWER;
}

/* QEMU's and KVM's APIC timers count nanoseconds: the cycle counter is measured by it. */
static void set_up_clock(void)
{
    local_apic[APIC_START] = UINT32_MAX;
    started = cycles();
    uint32_t first = local_apic[APIC_COUNT], passed;
    do
        passed = first - local_apic[APIC_COUNT];
    while (passed < SECOND / 1000);
    cycle_length = ((uint64_t)passed << 32) / (cycles() - started);
    local_apic[APIC_START] = SECOND;
}

uint64_t now(void) { return (unsigned __int128)(cycles() - started) * cycle_length >> 32; }

void wait_until(uint64_t moment)
{
    uint64_t time = now();
    if (time >= moment)
        return;
    local_apic[APIC_START] = MIN(moment - time, SECOND);
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

bool take_interrupt(uint64_t vector)
{
    bool pressed = vector == VECTOR_POWER && (*events & POWER_PRESSED);
    if (vector == VECTOR_TIMER)
        local_apic[APIC_START] = SECOND;
    if (vector != VECTOR_SPURIOUS)
        local_apic[APIC_END] = 0;
    return pressed;
}

/* -- The console: the serial line, and the end of it in the kernel's log */

static void keep(const char *text, size_t length)
{
    const size_t room = sizeof log_text - 1;
    if (length > room) {
        text += length - room;
        length = room;
    }
    size_t old = MIN(log_length, room - length);
    memmove(log_text, log_text + log_length - old, old);
    memcpy(log_text + old, text, length);
    log_length = old + length;
}

void console(const char *text, size_t length)
{
    keep(text, length);
    while (length > 0) {
        while (!(in(SERIAL + 5) & 0x20))
            ;
        size_t count = MIN(length, 16); /* so many the line takes at once */
        length -= count;
        __asm__ volatile("rep outsb" : "+S"(text), "+c"(count) : "d"((uint16_t)SERIAL) : "memory");
    }
}

static void print_number(uint64_t number, unsigned base, unsigned digits)
{
    char text[20];
    size_t start = sizeof text;
    do {
        text[--start] = "0123456789ABCDEF"[number % base];
        number /= base;
    } while (number > 0 || sizeof text - start < digits);
    console(text + start, sizeof text - start);
}

void print(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (const char *c = format; *c; c++) {
        uint64_t time = now();
        if (*c != '%') {
            console(c, 1);
            continue;
        }
        switch (*++c) {
        case 's':
            for (const char *text = va_arg(arguments, const char *); *text; text++)
                console(text, 1);
            break;
        case 'u':
            print_number(va_arg(arguments, unsigned), 10, 1);
            break;
        case 'x':
            print_number(va_arg(arguments, unsigned), 16, 1);
            break;
        case 't':
            console("[", 1);
            print_number(time / SECOND, 10, 1);
            console(".", 1);
            print_number(time % SECOND / 1000, 10, 6);
            console("]", 1);
        }
    }
    va_end(arguments);
}

/* -- The end */

static void stop(int code)
{
    if (root == NULL || get(root, "debug_exit") != NULL)
        out(DEBUG_EXIT, code);
    *sleep_control = SLEEP_S5;
    for (;;)
        __asm__ volatile("cli; hlt");
}

void finish(int code)
{
    if (code != 0)
        write_klog(code, log_text, log_length);
    stop(code);
    __builtin_unreachable();
}

void panic(const char *why)
{
    print("%s\n", why);
    stop(CODE_FAULT);
    __builtin_unreachable();
}

_Noreturn void start(const struct start_info *info)
{
    out(SERIAL + 2, 1); /* its queue of 16 bytes */
    set_up_memory(info);
    set_up_interrupts();
    set_up_clock();
    mount_all();
    start_network();
    run_program();
}

/* -- What the compiler calls, too */

void *memcpy(void *to, const void *from, size_t length)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
    return start;
}

void *memmove(void *to, const void *from, size_t length)
{
    if ((uintptr_t)to - (uintptr_t)from >= length)
        return memcpy(to, from, length);
    while (length-- > 0)
        ((char *)to)[length] = ((const char *)from)[length];
    return to;
}

void *memset(void *to, int byte, size_t length)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(byte) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t length)
{
    const unsigned char *x = a, *y = b;
    for (; length > 0; length--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}
