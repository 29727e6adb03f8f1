/* Virtio's devices at their transports in memory, and their queues. */

#include "kernel.h"

enum { TRANSPORTS = 0xfeb00000, TRANSPORT_BYTES = 0x200, TRANSPORT_COUNT = 24, MAGIC = 0x74726976 };

/* Registers of virtio-mmio (virtio 1.2, section 4.2.2), in words. */
enum {
    R_MAGIC = 0x000 / 4,
    R_VERSION = 0x004 / 4,
    R_DEVICE = 0x008 / 4,
    R_DRIVER_FEATURES = 0x020 / 4,
    R_DRIVER_FEATURES_SELECT = 0x024 / 4,
    R_QUEUE = 0x030 / 4,
    R_QUEUE_LENGTH = 0x038 / 4,
    R_QUEUE_READY = 0x044 / 4,
    R_NOTIFY = 0x050 / 4,
    R_STATUS = 0x070 / 4,
    R_DESCRIPTORS = 0x080 / 4,
    R_AVAILABLE = 0x090 / 4,
    R_USED = 0x0a0 / 4,
};

enum { ACKNOWLEDGED = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NO_INTERRUPT = 1 };

volatile uint32_t *find_device(uint32_t kind, unsigned number)
{
    for (unsigned i = 0; i < TRANSPORT_COUNT; i++) {
        volatile uint32_t *device = (void *)(uintptr_t)(TRANSPORTS + i * TRANSPORT_BYTES);
        if (device[R_MAGIC] != MAGIC || device[R_DEVICE] != kind || number-- > 0)
            continue;
        if (device[R_VERSION] != 2)
            panic("the virtio devices are of the legacy kind: start QEMU with -global virtio-mmio.force-legacy=false");
        return device;
    }
    return NULL;
}

static void set_address(volatile uint32_t *device, unsigned place, volatile void *address)
{
    device[place] = (uint32_t)(uintptr_t)address;
    device[place + 1] = (uintptr_t)address >> 32;
}

void start_device(volatile uint32_t *device, struct queue *queues, unsigned count)
{
    device[R_STATUS] = 0;
    device[R_STATUS] = ACKNOWLEDGED | DRIVER;
    device[R_DRIVER_FEATURES_SELECT] = 1;
    device[R_DRIVER_FEATURES] = 1; /* VIRTIO_F_VERSION_1, and nothing else */
    device[R_STATUS] = ACKNOWLEDGED | DRIVER | FEATURES_OK;
    for (unsigned i = 0; i < count; i++) {
        queues[i].device = device;
        queues[i].number = i;
        queues[i].available.flags = NO_INTERRUPT;
        device[R_QUEUE] = i;
        device[R_QUEUE_LENGTH] = QUEUE_LENGTH;
        set_address(device, R_DESCRIPTORS, queues[i].descriptors);
        set_address(device, R_AVAILABLE, &queues[i].available);
        set_address(device, R_USED, &queues[i].used);
        device[R_QUEUE_READY] = 1;
    }
    device[R_STATUS] = ACKNOWLEDGED | DRIVER | FEATURES_OK | DRIVER_OK;
}

void offer(struct queue *queue, uint16_t descriptor)
{
    uint16_t index = queue->available.index;
    queue->available.ring[index % QUEUE_LENGTH] = descriptor;
    __asm__ volatile("mfence" : : : "memory");
    queue->available.index = index + 1;
    __asm__ volatile("mfence" : : : "memory");
    queue->device[R_NOTIFY] = queue->number;
}

bool take_used(struct queue *queue, uint32_t *descriptor, uint32_t *length)
{
    if (queue->used.index == queue->seen)
        return false;
    __asm__ volatile("" : : : "memory");
    *descriptor = queue->used.ring[queue->seen % QUEUE_LENGTH].id;
    *length = queue->used.ring[queue->seen % QUEUE_LENGTH].length;
    queue->seen++;
    return true;
}

void await_used(struct queue *queue)
{
    uint32_t descriptor, length;
    while (!take_used(queue, &descriptor, &length))
        __asm__ volatile("pause" : : : "memory");
}
