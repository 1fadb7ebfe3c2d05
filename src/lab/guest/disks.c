// Keeps a count on each disk of the guest, fsynced, and reads back what it wrote before, past the page cache.
#include "probe.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096, MAX_DISKS = 8, WRITES_PER_LINE = 5 };

static const struct timespec between_writes = {.tv_nsec = 200000000};

static _Noreturn void keep_disk(const char *guest, const char *name, int fd, int direct_fd) {
  static _Alignas(BLOCK_BYTES) uint8_t written[BLOCK_BYTES], found[BLOCK_BYTES];
  uint64_t count = 0, strange = 0;
  for (;; nanosleep(&between_writes, NULL)) {
    if (pread(direct_fd, found, BLOCK_BYTES, 0) != BLOCK_BYTES) strange++;
    else if (count > 0 && memcmp(written, found, BLOCK_BYTES) != 0) strange++;
    fill_pattern(written, BLOCK_BYTES, 1, ++count);
    if (pwrite(fd, written, BLOCK_BYTES, 0) != BLOCK_BYTES || fsync(fd) != 0) strange++;
    if (count % WRITES_PER_LINE != 0) continue;
    char line[128];
    int length = snprintf(line, sizeof line, "{\"t\":\"disk\",\"id\":\"%s\",\"disk\":\"%s\",\"count\":%llu,\"strange\":%llu}\n",
                          guest, name, (unsigned long long)count, (unsigned long long)strange);
    if (write(STDOUT_FILENO, line, (size_t)length) != length) exit(1);
  }
}

void keep_disks(const char *guest) {
  for (char letter = 'a'; letter < 'a' + MAX_DISKS; letter++) {
    char path[] = "/dev/vd?";
    path[sizeof path - 2] = letter;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) continue;
    int direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (direct_fd >= 0 && fork() == 0) keep_disk(guest, path + strlen("/dev/"), fd, direct_fd);
    close(fd);
    close(direct_fd);
  }
}
