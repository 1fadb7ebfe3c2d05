// Tells the kernel how well CLOCK_REALTIME is kept, as chrony and phc2sys do (adjtimex(2)). Arguments: microseconds of the
// largest error, or "unkept"; "leap": the same with a leap second at the end of the day.
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>

int main(int count, char **arguments) {
  if (count < 2) errx(2, "MICROSECONDS or unkept, and maybe leap");
  struct timex state = {.modes = ADJ_STATUS | ADJ_MAXERROR | ADJ_ESTERROR};
  if (strcmp(arguments[1], "unkept") == 0) {
    state.status = STA_UNSYNC;
  } else {
    state.maxerror = atol(arguments[1]);
    if (count > 2) state.status = STA_INS;
  }
  if (adjtimex(&state) < 0) err(1, "adjtimex");
  return 0;
}
