/* Nanos' filesystem, TFS version 5: the log of its metadata, read into a tree of values; files, found, read and replaced. */

#include "kernel.h"

enum { MAX_FILESYSTEMS = 8, PARTITIONS = 446, LINKS_FOLLOWED = 8, MAX_NAME = 255, MAX_RECORD = 1024 };
enum { LOG_END = 1, RECORD = 2, CONTINUATION = 3, SEGMENT = 4, LINK = 5 };

struct filesystem {
    struct disk *disk;
    uint64_t start, sectors; /* on the disk */
    char label[32];
    char identity[37]; /* the UUID, as text */
    struct value *root;
    struct value **numbered; /* from 1 */
    uint32_t numbers, capacity;
    uint64_t log_start, log_sectors, log_end; /* the log's last extension, and where all of them end */
    uint8_t *log;                             /* what is in it, */
    uint64_t log_position;                    /* and where its end record is */
};

struct reader {
    struct filesystem *filesystem;
    const uint8_t *next, *end;
};

struct value *root;

static struct filesystem filesystems[MAX_FILESYSTEMS], *root_filesystem;
static unsigned filesystem_count;
static uint64_t klog_sector;

/* -- Values */

static uint8_t pop(struct reader *reader)
{
    if (reader->next >= reader->end)
        panic("the log of a filesystem is damaged");
    return *reader->next++;
}

static uint64_t pop_groups(struct reader *reader, uint64_t number, bool more)
{
    while (more) {
        uint8_t byte = pop(reader);
        number = number << 7 | (byte & 0x7f);
        more = byte & 0x80;
    }
    return number;
}

static uint64_t pop_varint(struct reader *reader) { return pop_groups(reader, 0, true); }

static const char *pop_text(struct reader *reader, uint64_t length)
{
    const char *text = (const char *)reader->next;
    if (length > (uint64_t)(reader->end - reader->next))
        panic("the log of a filesystem is damaged");
    reader->next += length;
    return text;
}

static struct value *new_value(enum kind kind)
{
    struct value *value = take(sizeof *value);
    value->kind = kind;
    return value;
}

static struct value *number_value(struct filesystem *filesystem, struct value *value)
{
    if (filesystem->numbers + 1 >= filesystem->capacity) {
        uint32_t capacity = filesystem->capacity ? 2 * filesystem->capacity : 1024;
        struct value **larger = take(capacity * sizeof *larger);
        memcpy(larger, filesystem->numbered, filesystem->capacity * sizeof *larger);
        filesystem->numbered = larger;
        filesystem->capacity = capacity;
    }
    value->number = ++filesystem->numbers;
    filesystem->numbered[value->number] = value;
    return value;
}

static struct value *known(struct filesystem *filesystem, uint64_t number, enum kind kind)
{
    if (number == 0 || number > filesystem->numbers || filesystem->numbered[number]->kind != kind)
        panic("the log of a filesystem refers to what is not there");
    return filesystem->numbered[number];
}

static struct value *new_text(enum kind kind, const char *text, size_t length)
{
    struct value *value = new_value(kind);
    value->text = text;
    value->length = length;
    return value;
}

const char *text_of(const struct value *value)
{
    return memcpy(take(value->length + 1), value->text, value->length);
}

bool is_text(const struct value *value, const char *text)
{
    return (value->kind == SYMBOL || value->kind == STRING) && value->length == strlen(text) && !memcmp(value->text, text, value->length);
}

static bool is_same(const struct value *a, const struct value *b)
{
    return a == b || (a->length == b->length && !memcmp(a->text, b->text, a->length));
}

static void add(struct value *tuple, struct value *name, struct value *value)
{
    struct pair *pair = take(sizeof *pair);
    *pair = (struct pair){name, value, tuple->pairs};
    tuple->pairs = pair;
}

/* Set what a name stands for; no value takes the name away. */
static void set(struct value *tuple, struct value *name, struct value *value)
{
    for (struct pair **place = &tuple->pairs; *place; place = &(*place)->next) {
        if (is_same((*place)->name, name)) {
            *place = (*place)->next;
            break;
        }
    }
    if (value != NULL)
        add(tuple, name, value);
}

static struct value *decode(struct reader *reader);

static struct value *decode_composite(struct reader *reader, enum kind kind, bool immediate, uint64_t count)
{
    struct filesystem *filesystem = reader->filesystem;
    struct value *value = immediate ? number_value(filesystem, new_value(kind)) : known(filesystem, pop_varint(reader), kind);
    struct pair **last = &value->pairs;
    for (; count > 0; count--) {
        struct value *name = NULL;
        if (kind == TUPLE) {
            uint8_t header = pop(reader);
            uint64_t length = pop_groups(reader, header & 7, header & 8);
            name = header & 0x80 ? number_value(filesystem, new_text(SYMBOL, pop_text(reader, length), length))
                                 : known(filesystem, length, SYMBOL);
        }
        struct value *item = decode(reader);
        if (kind == TUPLE && immediate) {
            add(value, name, item);
        } else if (kind == TUPLE) {
            set(value, name, item);
        } else {
            struct pair *pair = take(sizeof *pair);
            pair->value = item;
            *last = pair;
            last = &pair->next;
        }
    }
    return value;
}

static struct value *decode(struct reader *reader)
{
    uint8_t header = pop(reader);
    bool immediate = header & 0x80;
    enum kind kind = header >> 4 & 7;
    uint64_t number = pop_groups(reader, header & 7, header & 8);
    struct value *value;
    switch (kind) {
    case TUPLE:
    case VECTOR:
        return decode_composite(reader, kind, immediate, number);
    case INTEGER:
        value = new_value(INTEGER);
        value->integer = pop_varint(reader);
        if (number > 0)
            value->integer = -value->integer;
        return value;
    case SYMBOL:
        if (number == 0)
            return NULL; /* what the name had is taken away */
        /* fall through */
    case STRING:
        return immediate ? new_text(STRING, pop_text(reader, number), number) : known(reader->filesystem, number, SYMBOL);
    }
    panic("the log of a filesystem has a value of another kind");
}

struct value *get(const struct value *tuple, const char *name)
{
    if (tuple != NULL && tuple->kind == TUPLE)
        for (struct pair *pair = tuple->pairs; pair; pair = pair->next)
            if (is_text(pair->name, name))
                return pair->value;
    return NULL;
}

static uint64_t number_of(const struct value *value)
{
    if (value == NULL)
        return 0;
    if (value->kind == INTEGER)
        return value->integer;
    uint64_t number = 0;
    for (size_t i = 0; i < value->length; i++)
        number = number * 10 + (value->text[i] - '0');
    return number;
}

/* -- The log */

static void read_extension(struct reader *reader, uint64_t sector, uint64_t sectors)
{
    struct filesystem *filesystem = reader->filesystem;
    if (sector + sectors > filesystem->sectors)
        panic("the log of a filesystem goes on beyond its end");
    filesystem->log_start = sector;
    filesystem->log_sectors = sectors;
    filesystem->log = take(sectors * SECTOR);
    read_sectors(filesystem->disk, filesystem->start + sector, filesystem->log, sectors);
    if (filesystem->log_end < sector + sectors)
        filesystem->log_end = sector + sectors;
    reader->next = filesystem->log;
    reader->end = filesystem->log + sectors * SECTOR;
    if (memcmp(pop_text(reader, 6), "NVMTFS", 6) != 0 || pop_varint(reader) != 5)
        panic("there is no filesystem of version 5");
    pop_varint(reader); /* its length, which is known */
}

static void read_log(struct filesystem *filesystem)
{
    static const char digits[] = "0123456789abcdef";
    struct reader reader = {filesystem, NULL, NULL};
    const uint8_t *piece, *record = NULL;
    uint64_t sector, length, total = 0, got = 0;

    read_extension(&reader, 0, 1);
    const char *uuid = pop_text(&reader, 16);
    char *to = filesystem->identity;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        *to++ = digits[(uint8_t)uuid[i] >> 4];
        *to++ = digits[uuid[i] & 15];
    }
    for (unsigned i = 0; i < sizeof filesystem->label && (filesystem->label[i] = pop(&reader)) != '\0'; i++)
        ;
    filesystem->label[sizeof filesystem->label - 1] = '\0';

    for (;;) {
        filesystem->log_position = reader.next - filesystem->log;
        switch (pop(&reader)) {
        case LOG_END:
            filesystem->root = known(filesystem, 1, TUPLE);
            return;
        case RECORD:
            total = pop_varint(&reader);
            got = 0;
            /* fall through */
        case CONTINUATION:
            length = pop_varint(&reader);
            piece = (const uint8_t *)pop_text(&reader, length);
            if (length > total - got)
                panic("the log of a filesystem is damaged");
            if (got == 0)
                record = length == total ? piece : take(total);
            if (record != piece)
                memcpy((uint8_t *)record + got, piece, length);
            got += length;
            if (got == total)
                decode(&(struct reader){filesystem, record, record + total});
            continue;
        case SEGMENT:
            continue;
        case LINK:
            sector = pop_varint(&reader);
            length = pop_varint(&reader);
            read_extension(&reader, sector, length);
            continue;
        default:
            panic("the log of a filesystem is damaged");
        }
    }
}

/* -- Mounting */

static struct filesystem *mount(struct disk *disk, uint64_t start)
{
    if (filesystem_count == MAX_FILESYSTEMS)
        panic("there are too many filesystems");
    struct filesystem *filesystem = &filesystems[filesystem_count++];
    filesystem->disk = disk;
    filesystem->start = start;
    filesystem->sectors = disk_sectors(disk) - start;
    read_log(filesystem);
    return filesystem;
}

static uint32_t partition(const uint8_t *sector, unsigned number)
{
    uint32_t start;
    memcpy(&start, sector + PARTITIONS + 16 * number + 8, sizeof start);
    return start;
}

/* A disk with partitions has the root filesystem in the second, and the kernel's log in front of the first; others are volumes. */
void mount_all(void)
{
    uint8_t *sector = take(SECTOR);
    struct disk *disk;
    for (unsigned i = 0; (disk = find_disk(i)) != NULL; i++) {
        read_sectors(disk, 0, sector, 1);
        bool partitioned = sector[510] == 0x55 && sector[511] == 0xaa && partition(sector, 1) != 0;
        struct filesystem *filesystem = mount(disk, partitioned ? partition(sector, 1) : 0);
        if (partitioned) {
            root_filesystem = filesystem;
            root = filesystem->root;
            klog_sector = partition(sector, 0) - KLOG_BYTES / SECTOR;
        }
    }
    if (root == NULL)
        panic("there is no root filesystem");
}

void write_klog(int code, const char *text, size_t length)
{
    uint8_t *record = take(KLOG_BYTES);
    if (root == NULL)
        return;
    memcpy(record, "KLOG", 4);
    memcpy(record + 12, &code, sizeof code);
    memcpy(record + 16, text, length);
    write_sectors(root_filesystem->disk, klog_sector, record, KLOG_BYTES / SECTOR);
}

/* -- Paths */

void join_path(char joined[MAX_PATH], const char *directory, const char *path)
{
    const char *parts[] = {*path == '/' ? "" : directory, path};
    size_t length = 0;
    for (unsigned i = 0; i < COUNT(parts); i++) {
        for (const char *part = parts[i]; *part;) {
            size_t size = 0;
            while (part[size] && part[size] != '/')
                size++;
            if (size == 2 && part[0] == '.' && part[1] == '.') {
                while (length > 0 && joined[--length] != '/')
                    ;
            } else if (size > 0 && !(size == 1 && *part == '.') && length + size + 2 < MAX_PATH) {
                joined[length++] = '/';
                memcpy(joined + length, part, size);
                length += size;
            }
            part += size + (part[size] == '/');
        }
    }
    joined[length] = '\0';
}

/* The filesystem that has a path, by the root tuple's mounts, whose names are labels or UUIDs; and what of the path is in it. */
static struct filesystem *find_filesystem(const char *path, const char **rest, bool *read_only)
{
    struct filesystem *found = root_filesystem;
    struct value *mounts = get(root, "mounts");
    size_t longest = 0;
    *rest = path;
    *read_only = get(root, "readonly_rootfs") != NULL;
    for (struct pair *pair = mounts ? mounts->pairs : NULL; pair; pair = pair->next) {
        const char *where = pair->value->text;
        size_t length = pair->value->length;
        bool writable = length < 3 || memcmp(where + length - 3, ":ro", 3) != 0;
        length -= writable ? 0 : 3;
        if (length <= longest || memcmp(path, where, MIN(length, strlen(path) + 1)) != 0 || (path[length] && path[length] != '/'))
            continue;
        for (struct filesystem *it = filesystems; it < filesystems + filesystem_count; it++) {
            if (it != root_filesystem && (is_text(pair->name, it->label) || is_text(pair->name, it->identity))) {
                found = it;
                longest = length;
                *rest = path + length;
                *read_only = !writable;
            }
        }
    }
    return found;
}

static bool follow(const char *path, struct file *found, bool *read_only, unsigned links)
{
    const char *rest;
    found->filesystem = find_filesystem(path, &rest, read_only);
    found->node = found->filesystem->root;
    while (*rest == '/') {
        char name[MAX_PATH];
        const char *start = ++rest;
        while (*rest && *rest != '/')
            rest++;
        memcpy(name, start, rest - start);
        name[rest - start] = '\0';
        found->node = get(get(found->node, "children"), name);
        if (found->node == NULL)
            return false;
        struct value *target = get(found->node, "linktarget");
        if (target != NULL) {
            char directory[MAX_PATH], text[MAX_PATH], joined[MAX_PATH];
            if (links == LINKS_FOLLOWED || target->length + strlen(rest) >= MAX_PATH)
                return false;
            memcpy(directory, path, start - path);
            directory[start - path] = '\0';
            memcpy(text, target->text, target->length);
            memcpy(text + target->length, rest, strlen(rest) + 1);
            join_path(joined, directory, text);
            return follow(joined, found, read_only, links + 1);
        }
    }
    return true;
}

bool find_file(const char *path, struct file *found)
{
    bool read_only;
    return follow(path, found, &read_only, 0);
}

bool is_directory(const struct file *file) { return file->node == file->filesystem->root || get(file->node, "children") != NULL; }

/* -- Reading */

uint64_t file_length(const struct file *file) { return number_of(get(file->node, "filelength")); }

/* Read from within one extent, or from between extents, where a file has zeroes. */
static size_t read_some(const struct file *file, uint64_t offset, uint8_t *data, size_t length)
{
    struct filesystem *filesystem = file->filesystem;
    struct value *extents = get(file->node, "extents");
    uint64_t sector = offset / SECTOR, skipped = offset % SECTOR;
    for (struct pair *pair = extents ? extents->pairs : NULL; pair; pair = pair->next) {
        uint64_t first = number_of(pair->name), count = number_of(get(pair->value, "length"));
        if (sector < first && offset + length > first * SECTOR)
            length = first * SECTOR - offset;
        if (sector < first || sector >= first + count)
            continue;
        uint64_t place = filesystem->start + number_of(get(pair->value, "offset")) + sector - first;
        if (skipped > 0 || length < SECTOR) {
            uint8_t bounce[SECTOR];
            length = MIN(length, SECTOR - skipped);
            read_sectors(filesystem->disk, place, bounce, 1);
            memcpy(data, bounce + skipped, length);
        } else {
            uint64_t sectors = MIN(length / SECTOR, first + count - sector);
            read_sectors(filesystem->disk, place, data, sectors);
            length = sectors * SECTOR;
        }
        return length;
    }
    memset(data, 0, length);
    return length;
}

size_t read_file(const struct file *file, uint64_t offset, void *data, size_t length)
{
    uint64_t whole = file_length(file);
    size_t done = 0;
    length = offset < whole ? MIN(length, whole - offset) : 0;
    while (done < length)
        done += read_some(file, offset + done, (uint8_t *)data + done, length - done);
    return done;
}

/* -- Writing: a file's new data is put where nothing is, and a record at the log's end says so. */

static uint64_t used_until(const struct value *node)
{
    uint64_t until = 0;
    struct value *extents = get(node, "extents"), *children = get(node, "children");
    for (struct pair *pair = extents ? extents->pairs : NULL; pair; pair = pair->next) {
        uint64_t end = number_of(get(pair->value, "offset")) + number_of(get(pair->value, "allocated"));
        until = end > until ? end : until;
    }
    for (struct pair *pair = children ? children->pairs : NULL; pair; pair = pair->next) {
        uint64_t end = used_until(pair->value);
        until = end > until ? end : until;
    }
    return until;
}

static void push_groups(uint8_t **to, unsigned groups, uint64_t number)
{
    for (; groups > 0; groups--)
        *(*to)++ = (number >> 7 * (groups - 1) & 0x7f) | (groups > 1 ? 0x80 : 0);
}

static void push_varint(uint8_t **to, uint64_t number)
{
    unsigned groups = 1;
    while (groups < 9 && number >> 7 * groups)
        groups++;
    push_groups(to, groups, number);
}

static void push_header(uint8_t **to, bool immediate, enum kind kind, uint64_t number)
{
    unsigned groups = 0;
    while (number >> 7 * groups > 7)
        groups++;
    *(*to)++ = immediate << 7 | kind << 4 | (groups > 0) << 3 | number >> 7 * groups;
    push_groups(to, groups, number);
}

static void encode(uint8_t **to, struct filesystem *filesystem, struct value *value)
{
    if (value->kind == INTEGER) {
        push_header(to, true, INTEGER, 0);
        push_varint(to, value->integer);
    } else if (value->kind == SYMBOL && value->number > 0) {
        push_header(to, false, SYMBOL, value->number);
    } else if (value->kind == SYMBOL) {
        push_header(to, true, SYMBOL, value->length);
        memcpy(*to, value->text, value->length);
        *to += value->length;
        number_value(filesystem, value);
    } else {
        uint64_t count = 0;
        for (struct pair *pair = value->pairs; pair; pair = pair->next)
            count++;
        push_header(to, true, TUPLE, count);
        number_value(filesystem, value);
        for (struct pair *pair = value->pairs; pair; pair = pair->next) {
            encode(to, filesystem, pair->name);
            encode(to, filesystem, pair->value);
        }
    }
}

static struct value *symbol(struct filesystem *filesystem, const char *text)
{
    for (uint32_t i = 1; i <= filesystem->numbers; i++)
        if (filesystem->numbered[i]->kind == SYMBOL && is_text(filesystem->numbered[i], text))
            return filesystem->numbered[i];
    size_t length = strlen(text);
    return new_text(SYMBOL, memcpy(take(length), text, length), length);
}

static void set_integer(struct filesystem *filesystem, struct value *tuple, const char *name, uint64_t integer)
{
    struct value *value = new_value(INTEGER);
    value->integer = integer;
    set(tuple, symbol(filesystem, name), value);
}

static int append_record(struct filesystem *filesystem, struct value *directory, struct value *name, struct value *node)
{
    uint8_t record[MAX_RECORD], *end = record;
    push_header(&end, false, TUPLE, 1);
    push_varint(&end, directory->number);
    encode(&end, filesystem, name);
    encode(&end, filesystem, node);
    uint64_t length = end - record, position = filesystem->log_position;
    if (position + length + 16 > filesystem->log_sectors * SECTOR)
        return -ERROR_NO_SPACE;
    uint8_t *to = filesystem->log + position;
    *to++ = RECORD;
    push_varint(&to, length);
    push_varint(&to, length);
    memcpy(to, record, length);
    to += length;
    *to = LOG_END;
    filesystem->log_position = to - filesystem->log;
    uint64_t first = position / SECTOR, last = filesystem->log_position / SECTOR;
    write_sectors(filesystem->disk, filesystem->start + filesystem->log_start + first, filesystem->log + first * SECTOR, last - first + 1);
    return 0;
}

int write_file(const char *path, const void *data, size_t length)
{
    char directory_path[MAX_PATH];
    const char *name = path + strlen(path);
    struct file directory;
    bool read_only;
    while (name > path && name[-1] != '/')
        name--;
    memcpy(directory_path, path, name - path);
    directory_path[name - path - 1] = '\0';
    if (strlen(name) > MAX_NAME || !follow(directory_path, &directory, &read_only, 0))
        return -ERROR_NO_ENTRY;
    if (read_only)
        return -ERROR_READ_ONLY;
    struct filesystem *filesystem = directory.filesystem;
    struct value *children = get(directory.node, "children");
    if (children == NULL)
        return -ERROR_NO_ENTRY;

    struct value *node = new_value(TUPLE), *extents = new_value(TUPLE);
    set_integer(filesystem, node, "filelength", length);
    set(node, symbol(filesystem, "extents"), extents);
    if (length > 0) {
        uint64_t used = used_until(filesystem->root), sectors = (length + SECTOR - 1) / SECTOR;
        uint64_t first = used > filesystem->log_end ? used : filesystem->log_end;
        if (first + sectors > filesystem->sectors)
            return -ERROR_NO_SPACE;
        uint8_t *padded = take(sectors * SECTOR);
        memcpy(padded, data, length);
        write_sectors(filesystem->disk, filesystem->start + first, padded, sectors);
        struct value *extent = new_value(TUPLE);
        set_integer(filesystem, extent, "length", sectors);
        set_integer(filesystem, extent, "offset", first);
        set_integer(filesystem, extent, "allocated", sectors);
        set(extents, symbol(filesystem, "0"), extent);
    }
    struct value *entry = symbol(filesystem, name);
    int error = append_record(filesystem, children, entry, node);
    if (error == 0)
        set(children, entry, node);
    return error;
}
