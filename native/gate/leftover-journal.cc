#include "gate/leftover-journal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <cstring>
#include <utility>

#include "job.h"

namespace staghorn {

static constexpr char kMagic[8] = {'S', 'T', 'A', 'G', 'L', 'E', 'F', 'T'};
static constexpr size_t kAlign = 8;

template <typename T>
static void Publish(T &word, T value) {
  __atomic_store_n(&word, value, __ATOMIC_SEQ_CST);
}

static size_t Aligned(size_t bytes) { return (bytes + kAlign - 1) & ~(kAlign - 1); }

LeftoverJournal::LeftoverJournal(int fd, size_t size) : size_(size) {
  void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) throw SystemError(errno, "mmap(leftovers)");
  memory_ = static_cast<uint8_t *>(memory);
  used_ = sizeof(LeftoverHead);
}

LeftoverJournal::LeftoverJournal(LeftoverJournal &&other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), size_(other.size_), used_(other.used_) {}

LeftoverJournal::~LeftoverJournal() {
  if (memory_ != nullptr) munmap(memory_, size_);
}

LeftoverJournal LeftoverJournal::Create(int fd, size_t size, uint64_t nonce) {
  // Not ftruncate: a full file system must show here, and not as SIGBUS at the cut.
  size &= ~(kAlign - 1);
  if (size < sizeof(LeftoverHead)) throw SystemError(EINVAL, "leftovers");
  if (int error = posix_fallocate(fd, 0, off_t(size))) throw SystemError(error, "posix_fallocate(leftovers)");
  LeftoverJournal journal(fd, size);
  LeftoverHead &head = journal.head();
  head = {};
  head.nonce = nonce;
  journal.Fill();
  memcpy(head.magic, kMagic, sizeof kMagic);
  return journal;
}

LeftoverJournal LeftoverJournal::Open(int fd, uint64_t nonce) {
  struct stat file;
  if (fstat(fd, &file) < 0) throw SystemError(errno, "fstat(leftovers)");
  if (size_t(file.st_size) < sizeof(LeftoverHead)) throw SystemError(ESTALE, "leftovers");
  LeftoverJournal journal(fd, size_t(file.st_size));
  LeftoverHead &head = journal.head();
  if (memcmp(head.magic, kMagic, sizeof kMagic) != 0 || head.nonce != nonce) throw SystemError(ESTALE, "leftovers");
  for (uint64_t i = 0; i < head.count; i++) {
    const LeftoverRecord *record = journal.Next();
    size_t left = journal.size_ - journal.used_;
    if (left < sizeof *record || left - sizeof *record < record->length) throw SystemError(EBADMSG, "leftovers");
    journal.used_ += Aligned(sizeof *record + record->length);
  }
  journal.SettleReading();
  return journal;
}

const LeftoverRecord *LeftoverJournal::After(const LeftoverRecord *record) {
  const uint8_t *start = reinterpret_cast<const uint8_t *>(record);
  return reinterpret_cast<const LeftoverRecord *>(start + Aligned(sizeof *record + record->length));
}

// Bytes that depend on their place (splitmix64), so that no frame ends like them for long; never 0, so that the
// padding of a short frame always shows.
static uint64_t PatternWord(uint64_t seed, size_t index) {
  uint64_t word = seed + index * 0x9e3779b97f4a7c15;
  word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
  word = (word ^ word >> 27) * 0x94d049bb133111eb;
  return (word ^ word >> 31) | 0x0101010101010101;
}

uint8_t LeftoverJournal::PatternAt(size_t place) const {
  return uint8_t(PatternWord(head().nonce, place / 8) >> (place % 8 * 8));
}

void LeftoverJournal::Fill() {
  for (size_t place = sizeof(LeftoverHead); place + 8 <= size_; place += 8) {
    uint64_t word = PatternWord(head().nonce, place / 8);
    memcpy(memory_ + place, &word, sizeof word);
  }
}

// A QEMU that runs may empty a ring first: ask before the read, since its descriptor may be a blocking one.
LeftoverJournal::Outcome LeftoverJournal::Read(const RingTap &tap, int64_t at_ns) {
  pollfd ready = {tap.fd, POLLIN, 0};
  if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLIN)) return Outcome::Empty;
  if (size_ - used_ < Aligned(sizeof(LeftoverRecord) + kLeftoverFrameBytesMax)) return Outcome::Full;
  LeftoverRecord *record = Next();
  record->port = tap.port;
  record->header_bytes = tap.header_bytes;
  record->at_ns = at_ns;
  iovec parts[2] = {{record->header, tap.header_bytes}, {record + 1, kLeftoverFrameBytesMax}};
  Publish(head().reading, uint64_t(1));
  ssize_t got = readv(tap.fd, parts, 2);
  if (got > ssize_t(tap.header_bytes)) Keep(record, size_t(got) - tap.header_bytes);
  Publish(head().reading, uint64_t(0));
  return got < 0 ? Outcome::Empty : Outcome::Read;
}

bool LeftoverJournal::ReadAll(const RingTap *taps, size_t count, int64_t at_ns) {
  for (size_t i = 0; i < count; i++) {
    Outcome outcome;
    while ((outcome = Read(taps[i], at_ns)) == Outcome::Read) continue;
    if (outcome == Outcome::Full) return false;
  }
  return true;
}

void LeftoverJournal::Keep(LeftoverRecord *record, size_t length) {
  record->length = uint32_t(length);
  Publish(head().count, head().count + 1);
  used_ += Aligned(sizeof *record + length);
}

// The kernel finishes a read before it lets a process die, and tells nobody how long the frame was: it ends where the
// pattern goes on.
void LeftoverJournal::SettleReading() {
  if (head().reading == 0) return;
  LeftoverRecord *record = Next();
  size_t start = used_ + sizeof *record;
  size_t end = start + kLeftoverFrameBytesMax <= size_ ? start + kLeftoverFrameBytesMax : start;
  while (end > start && memory_[end - 1] == PatternAt(end - 1)) end--;
  if (end > start) Keep(record, end - start);
  Publish(head().reading, uint64_t(0));
}

}  // namespace staghorn
