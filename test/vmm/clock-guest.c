// A guest's init: tells twenty times a second what its clocks read, on its console:
// "clocks REALTIME MONOTONIC BOOTTIME RTC LATE", the RTC in seconds, the others in nanoseconds; LATE is by how much the
// timer that woke it was overdue.
#include <fcntl.h>
#include <inttypes.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

enum { PERIOD_NS = 50000000, SECOND_NS = 1000000000 };

static int64_t now_ns(int clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * (int64_t)SECOND_NS + now.tv_nsec;
}

static int64_t rtc_seconds(int rtc) {
  struct rtc_time read;
  if (ioctl(rtc, RTC_RD_TIME, &read) != 0) return -1;
  struct tm date = {.tm_sec = read.tm_sec, .tm_min = read.tm_min, .tm_hour = read.tm_hour,
                    .tm_mday = read.tm_mday, .tm_mon = read.tm_mon, .tm_year = read.tm_year};
  return timegm(&date);
}

int main(void) {
  mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  int rtc = open("/dev/rtc0", O_RDONLY);
  for (int64_t due_ns = now_ns(CLOCK_MONOTONIC);;) {
    struct timespec due = {due_ns / SECOND_NS, due_ns % SECOND_NS};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    int64_t realtime = now_ns(CLOCK_REALTIME), monotonic = now_ns(CLOCK_MONOTONIC);
    printf("clocks %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", realtime, monotonic,
           now_ns(CLOCK_BOOTTIME), rtc_seconds(rtc), monotonic - due_ns);
    fflush(stdout);
    due_ns = monotonic + PERIOD_NS;
  }
}
