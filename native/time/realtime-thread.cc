#include "time/realtime-thread.h"

#include <sys/prctl.h>

#include "job.h"

namespace staghorn {

void PrepareThread(bool *realtime, int priority) {
  volatile char stack[32768];
  for (size_t i = 0; i < sizeof stack; i += 4096) stack[i] = 0;  // faults the stack in before it matters
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  *realtime = TryRealtime(priority);
}

}  // namespace staghorn
