/* Disks, with one request at a time, which is waited for. */

#include "kernel.h"

enum { BLOCK = 2, READ = 0, WRITE = 1 };

struct disk {
    struct queue queue;
    struct {
        uint32_t kind, reserved;
        uint64_t sector;
    } request;
    volatile uint8_t status;
};

struct disk *find_disk(unsigned number)
{
    volatile uint32_t *device = find_device(BLOCK, number);
    if (device == NULL)
        return NULL;
    struct disk *disk = take(sizeof *disk);
    start_device(device, &disk->queue, 1);
    return disk;
}

uint64_t disk_sectors(const struct disk *disk)
{
    volatile uint32_t *capacity = &disk->queue.device[DEVICE_CONFIGURATION];
    return capacity[0] | (uint64_t)capacity[1] << 32;
}

static void transfer(struct disk *disk, uint32_t kind, uint64_t sector, const void *data, size_t count)
{
    if (count == 0)
        return;
    struct buffer *buffers = disk->queue.descriptors;
    disk->request.kind = kind;
    disk->request.sector = sector;
    buffers[0] = (struct buffer){(uintptr_t)&disk->request, sizeof disk->request, BUFFER_GOES_ON, 1};
    buffers[1] = (struct buffer){(uintptr_t)data, count * SECTOR, BUFFER_GOES_ON | (kind == READ ? BUFFER_IS_WRITTEN : 0), 2};
    buffers[2] = (struct buffer){(uintptr_t)&disk->status, 1, BUFFER_IS_WRITTEN, 0};
    offer(&disk->queue, 0);
    await_used(&disk->queue);
    if (disk->status != 0)
        panic("a disk failed");
}

void read_sectors(struct disk *disk, uint64_t sector, void *data, size_t count) { transfer(disk, READ, sector, data, count); }

void write_sectors(struct disk *disk, uint64_t sector, const void *data, size_t count) { transfer(disk, WRITE, sector, data, count); }
