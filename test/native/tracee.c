// A process that notices what a fork by ptrace must not do to it: lose or repeat a signal, interrupt a system call,
// or change a register. Prints "ADDRESS LENGTH" of memory to fork; at SIGTERM "FAILURES SIGNALS ROUNDS".
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t done;
static volatile long signals;

static void OnTerminate(int signal) { done = signal; }
static void OnQueued(int signal) { signals += signal != 0; }

typedef double Vector __attribute__((vector_size(32)));

// Keeps sums in vector registers all the while.
__attribute__((noinline)) static double Compute(void) {
  Vector a = {1, 2, 3, 4}, b = {5, 6, 7, 8}, c = {0.5, 0.25, 0.125, 1};
  for (int i = 0; i < 2000000; i++) {
    a = a * 0.999 + c;
    b = b * 0.998 + a;
  }
  return a[0] + a[1] + a[2] + a[3] + b[0] + b[1] + b[2] + b[3];
}

static int SleepRound(void) {
  struct timespec pause = {0, 20000000};
  return nanosleep(&pause, NULL) != 0 || poll(NULL, 0, 20) != 0;
}

int main(int argc, char **argv) {
  size_t length = 64 << 20;
  char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (argc != 2 || memory == MAP_FAILED) return 1;
  memset(memory, 7, length);
  madvise(memory, length, MADV_DONTFORK);
  struct sigaction action = {.sa_handler = OnTerminate};
  sigaction(SIGTERM, &action, NULL);
  action.sa_handler = OnQueued;
  sigaction(SIGRTMIN, &action, NULL);
  double expected = Compute();
  printf("%lx %zu\n", (unsigned long)memory, length);
  fflush(stdout);
  long failures = 0, rounds = 0;
  for (; !done; rounds++) failures += strcmp(argv[1], "sleep") == 0 ? SleepRound() && !done : Compute() != expected;
  printf("%ld %ld %ld\n", failures, signals, rounds);
  return 0;
}
