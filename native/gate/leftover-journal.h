// The journal of frames that VMs had not read from their taps' rings at the cut: a file on a file system in memory,
// mapped shared, so that what was read outlives the process that read it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace staghorn {

constexpr size_t kLeftoverFrameBytesMax = 65536 + 64;  // a GSO frame of 64 KiB and its Ethernet and VLAN headers
constexpr size_t kVnetHeaderBytesMax = 64;             // virtio-net headers have 10, 12 or 20 bytes

struct LeftoverHead {
  char magic[8];
  uint64_t nonce;     // of the gate whose `seen` counts what is given back
  uint64_t count;     // whole records; grows last
  uint64_t reading;   // 1: behind the whole records there may be a frame of a read that nobody has counted
  uint64_t returned;  // records that their ports have again
  uint64_t attempt;   // the giving back under way: low half of its record's number + 1, low half of the port's `seen`
  uint64_t reserved[2];
};
static_assert(sizeof(LeftoverHead) == 64);

// The frame follows; the next record begins at a multiple of 8.
struct LeftoverRecord {
  uint32_t port;
  uint32_t header_bytes;
  int64_t at_ns;
  uint32_t length;
  uint32_t reserved;
  uint8_t header[kVnetHeaderBytesMax];
};

struct RingTap {
  int fd;
  uint32_t header_bytes;
  uint32_t port;
};

// Invariants: a record that is counted is whole; the bytes behind the counted ones are the pattern, but for what one
// read has left there; `returned` grows after the port has taken the frame. So a kill at any point loses no frame and
// doubles none.
class LeftoverJournal {
 public:
  enum class Outcome { Read, Empty, Full };

  // Makes the file `size` bytes long, present in memory and full of the pattern.
  static LeftoverJournal Create(int fd, size_t size, uint64_t nonce);
  // Takes over what a dead process has left. Throws SystemError ESTALE if it is not a journal of this gate.
  static LeftoverJournal Open(int fd, uint64_t nonce);
  LeftoverJournal(LeftoverJournal &&other) noexcept;
  ~LeftoverJournal();

  LeftoverHead &head() const { return *reinterpret_cast<LeftoverHead *>(memory_); }
  const uint8_t *memory() const { return memory_; }
  size_t size() const { return size_; }

  // Moves one frame from a ring into the journal.
  Outcome Read(const RingTap &tap, int64_t at_ns);
  // Empties the rings of all taps; false if there was no more room.
  bool ReadAll(const RingTap *taps, size_t count, int64_t at_ns);

  const LeftoverRecord *First() const { return reinterpret_cast<const LeftoverRecord *>(memory_ + sizeof(LeftoverHead)); }
  static const LeftoverRecord *After(const LeftoverRecord *record);
  static const uint8_t *FrameOf(const LeftoverRecord *record) { return reinterpret_cast<const uint8_t *>(record + 1); }

 private:
  LeftoverJournal(int fd, size_t size);
  LeftoverRecord *Next() const { return reinterpret_cast<LeftoverRecord *>(memory_ + used_); }
  uint8_t PatternAt(size_t place) const;
  void Fill();
  void Keep(LeftoverRecord *record, size_t length);
  void SettleReading();

  uint8_t *memory_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
};

}  // namespace staghorn
