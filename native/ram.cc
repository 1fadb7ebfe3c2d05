// RAM of a process to a sparse file and back: chunks of 1 MiB, checksummed, zero pages as holes.
#include <emmintrin.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <mutex>
#include <sstream>

#include "addon.h"
#include "descriptor.h"
#include "checksum.h"
#include "job.h"

namespace staghorn {

static constexpr size_t kChunkBytes = 1 << 20;
static constexpr size_t kPageBytes = 4096;
static constexpr size_t kChunkPages = kChunkBytes / kPageBytes;
static constexpr uint64_t kPagemapPresent = 1ull << 63, kPagemapSwapped = 1ull << 62;
static constexpr int kIdle = 20;  // one beyond the lowest nice value: SCHED_IDLE

struct SourceRegion {
  uint64_t address, length, file_offset;
  bool anonymous = false;
};

static Descriptor Open(const std::string &path, int flags) {
  int fd = open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (fd < 0) throw SystemError(errno, "open " + path);
  return Descriptor(fd);
}

static bool IsZeroPage(const uint8_t *page) {
  const __m128i *words = reinterpret_cast<const __m128i *>(page);
  const __m128i zero = _mm_setzero_si128();
  for (size_t i = 0; i < kPageBytes / 16; i += 8) {
    __m128i sum = _mm_load_si128(words + i);
    for (size_t j = 1; j < 8; j++) sum = _mm_or_si128(sum, _mm_load_si128(words + i + j));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(sum, zero)) != 0xffff) return false;
  }
  return true;
}

static uint32_t ZeroChecksum(size_t length) {
  static const std::vector<uint8_t> zeros(kChunkBytes);
  static const uint32_t whole = Crc32c(0, zeros.data(), kChunkBytes);
  return length == kChunkBytes ? whole : Crc32c(0, zeros.data(), length);
}

static void LowerPriority(int niceness) {
  if (niceness >= kIdle) {
    sched_param param = {};
    if (sched_setscheduler(0, SCHED_IDLE, &param) == 0) return;
    niceness = 19;
  }
  setpriority(PRIO_PROCESS, 0, niceness);  // of this thread alone, on Linux
}

// Page-aligned memory for one chunk.
class ChunkBuffer {
 public:
  ChunkBuffer() : data_(static_cast<uint8_t *>(aligned_alloc(kPageBytes, kChunkBytes))) {
    if (data_ == nullptr) throw SystemError(ENOMEM, "chunk buffer");
  }
  ~ChunkBuffer() { free(data_); }
  uint8_t *data() { return data_; }

 private:
  uint8_t *data_;
};

// Chunks dealt out to threads; the first error stops all of them.
class ChunkJob : public Job {
 protected:
  ChunkJob(uint64_t length, int threads, int niceness)
      : length_(length), chunks_((length + kChunkBytes - 1) / kChunkBytes), threads_(threads), niceness_(niceness) {}

  virtual void Work() = 0;  // in each thread

  void RunThreads() {
    std::vector<std::thread> threads;
    for (int i = 0; i < threads_; i++) {
      threads.emplace_back([this] {
        try {
          LowerPriority(niceness_);
          Work();
        } catch (const SystemError &error) {
          Fail(error.error, error.what());
        } catch (const std::bad_alloc &) {
          Fail(ENOMEM, "allocation");
        }
      });
    }
    for (std::thread &thread : threads) thread.join();
    if (error_ != 0) throw SystemError(error_, what_);
    ThrowIfCancelled();
  }
  // The next chunk's index, or -1 when there is none left or all shall stop.
  int64_t NextChunk() {
    if (cancelled() || stopped_) return -1;
    uint64_t index = next_.fetch_add(1);
    return index < chunks_ ? int64_t(index) : -1;
  }
  size_t ChunkLength(uint64_t index) const { return size_t(std::min<uint64_t>(kChunkBytes, length_ - index * kChunkBytes)); }
  void StopThreads() { stopped_ = true; }
  void AddProgress(size_t bytes) { control()->progress.store(double(done_.fetch_add(bytes) + bytes)); }

  uint64_t length_, chunks_;
  std::atomic<uint64_t> done_{0};

 private:
  void Fail(int error, const std::string &what) {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    if (error_ != 0) return;
    error_ = error;
    what_ = what;
  }
  int threads_, niceness_;
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  int error_ = 0;
  std::string what_;
};

class SaveJob : public ChunkJob {
 public:
  SaveJob(Napi::Object options, uint64_t length)
      : ChunkJob(length, options.Get("threads").As<Napi::Number>().Int32Value(),
                 options.Get("niceness").As<Napi::Number>().Int32Value()),
        rate_(options.Get("maxBytesPerSecond").As<Napi::Number>().DoubleValue()),
        checksums_(chunks_) {
    if (options.Get("pid").IsNumber()) pid_ = options.Get("pid").As<Napi::Number>().Int32Value();
    else source_fd_ = options.Get("fd").As<Napi::Number>().Int32Value();
    if (options.Get("file").IsString()) path_ = options.Get("file").As<Napi::String>().Utf8Value();
    else given_fd_ = options.Get("file").As<Napi::Number>().Int32Value();
    Napi::Array regions = options.Get("regions").As<Napi::Array>();
    for (uint32_t i = 0; i < regions.Length(); i++) {
      Napi::Object region = regions.Get(i).As<Napi::Object>();
      bool lossless;
      regions_.push_back({region.Get("address").As<Napi::BigInt>().Uint64Value(&lossless),
                          uint64_t(region.Get("length").As<Napi::Number>().Int64Value()),
                          uint64_t(region.Get("fileOffset").As<Napi::Number>().Int64Value())});
    }
  }

 protected:
  void Run() override {
    std::string proc = "/proc/" + std::to_string(pid_);
    try {
      memory_ = Open(pid_ == 0 ? "/proc/self/fd/" + std::to_string(source_fd_) : proc + "/mem", O_RDONLY);
      if (pid_ != 0) pagemap_ = Open(proc + "/pagemap", O_RDONLY);
    } catch (const SystemError &error) {
      throw SystemError(error.error == ENOENT ? ESRCH : error.error, error.what());  // a zombie's, or nobody's
    }
    if (pid_ != 0) MarkAnonymous(proc + "/maps");
    Descriptor own;
    if (given_fd_ < 0) own = Open(path_, O_RDWR | O_CREAT | O_TRUNC);
    file_ = given_fd_ < 0 ? own.get() : given_fd_;
    // Emptied first: what is not written afterwards must read as zeros.
    if (ftruncate(file_, 0) < 0 || ftruncate(file_, off_t(length_)) < 0) throw SystemError(errno, "ftruncate");
    started_ns_ = MonotonicNs();
    RunThreads();
  }

  void Work() override {
    ChunkBuffer buffer;
    for (int64_t chunk; (chunk = NextChunk()) >= 0;) {
      SaveChunk(uint64_t(chunk), buffer.data());
      AddProgress(ChunkLength(uint64_t(chunk)));
      Throttle();
    }
  }

  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("fileBytes", Napi::Number::New(env, double(length_)));
    result.Set("dataBytes", Napi::Number::New(env, double(data_bytes_.load())));
    Napi::Uint32Array checksums = Napi::Uint32Array::New(env, checksums_.size());
    std::copy(checksums_.begin(), checksums_.end(), checksums.Data());
    result.Set("chunkChecksums", checksums);
    return result;
  }

 private:
  // Pages of private anonymous memory which are neither present nor swapped out are zeros, and need not be read;
  // in a private file mapping they are the file's.
  void MarkAnonymous(const std::string &maps_path) {
    std::ifstream maps(maps_path);
    for (std::string line; std::getline(maps, line);) {
      uint64_t start, end, inode = 1;
      char dash;
      std::string permissions, offset, device;
      std::istringstream fields(line);
      fields >> std::hex >> start >> dash >> end >> permissions >> offset >> device >> std::dec >> inode;
      for (SourceRegion &region : regions_) {
        if (start <= region.address && end >= region.address + region.length) region.anonymous = inode == 0 && permissions[3] == 'p';
      }
    }
  }

  void SaveChunk(uint64_t chunk, uint8_t *buffer) {
    uint64_t from = chunk * kChunkBytes, length = ChunkLength(chunk);
    const SourceRegion *source = nullptr;
    for (const SourceRegion &region : regions_) {
      if (from >= region.file_offset && from < region.file_offset + region.length) source = &region;
    }
    uint64_t filled = source == nullptr ? 0 : std::min(length, source->file_offset + source->length - from);
    bool any = false;
    if (filled > 0) any = ReadPages(*source, source->address + (from - source->file_offset), filled, buffer);
    if (!any) {
      checksums_[chunk] = ZeroChecksum(length);
      return;
    }
    memset(buffer + filled, 0, length - filled);
    checksums_[chunk] = Crc32c(0, buffer, length);
    WriteData(buffer, filled, from);
  }

  // Fills the buffer with [address, address + length); false if all of it is known to be zeros.
  bool ReadPages(const SourceRegion &region, uint64_t address, size_t length, uint8_t *buffer) {
    size_t pages = length / kPageBytes;
    uint64_t entries[kChunkPages];
    if (region.anonymous) {
      ssize_t got = pread(pagemap_.get(), entries, pages * 8, off_t(address / kPageBytes * 8));
      if (got != ssize_t(pages * 8)) throw SystemError(got < 0 ? errno : ESRCH, "read /proc/PID/pagemap");
    } else {
      std::fill(entries, entries + pages, kPagemapPresent);
    }
    bool any = false;
    for (size_t start = 0; start < pages;) {
      bool present = entries[start] & (kPagemapPresent | kPagemapSwapped);
      size_t end = start + 1;
      while (end < pages && bool(entries[end] & (kPagemapPresent | kPagemapSwapped)) == present) end++;
      uint8_t *to = buffer + start * kPageBytes;
      if (present) ReadMemory(address + start * kPageBytes, (end - start) * kPageBytes, to);
      else memset(to, 0, (end - start) * kPageBytes);
      any |= present;
      start = end;
    }
    return any;
  }

  // process_vm_readv copies once where /proc/PID/mem copies twice; the latter also reads what is mapped unreadable.
  void ReadMemory(uint64_t address, size_t length, uint8_t *to) {
    iovec local = {to, length}, remote = {reinterpret_cast<void *>(address), length};
    if (pid_ != 0 && process_vm_readv(pid_, &local, 1, &remote, 1, 0) == ssize_t(length)) return;
    for (size_t done = 0; done < length;) {
      ssize_t got = pread(memory_.get(), to + done, length - done, off_t(address + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw SystemError(got < 0 ? errno : ESRCH, "read /proc/PID/mem");  // 0: the process is gone
      done += size_t(got);
    }
  }

  void WriteData(const uint8_t *buffer, size_t length, uint64_t file_offset) {
    for (size_t start = 0; start < length;) {
      if (IsZeroPage(buffer + start)) {
        start += kPageBytes;
        continue;
      }
      size_t end = start + kPageBytes;
      while (end < length && !IsZeroPage(buffer + end)) end += kPageBytes;
      for (size_t done = start; done < end;) {
        ssize_t put = pwrite(file_, buffer + done, end - done, off_t(file_offset + done));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) throw SystemError(put < 0 ? errno : ENOSPC, "write");
        done += size_t(put);
      }
      data_bytes_ += end - start;
      start = end;
    }
  }

  void Throttle() {
    constexpr long kSliceNs = 20000000;
    while (rate_ > 0 && !cancelled()) {
      double due_ns = double(data_bytes_.load()) / rate_ * 1e9, spent_ns = double(MonotonicNs() - started_ns_);
      if (spent_ns >= due_ns) return;
      timespec pause = {0, long(std::min(due_ns - spent_ns, double(kSliceNs)))};
      nanosleep(&pause, nullptr);
    }
  }

  pid_t pid_ = 0;  // 0: a file
  int source_fd_ = -1;
  double rate_;
  std::string path_;
  int given_fd_ = -1, file_ = -1;
  std::vector<SourceRegion> regions_;
  Descriptor memory_, pagemap_;
  int64_t started_ns_ = 0;
  std::atomic<uint64_t> data_bytes_{0};
  std::vector<uint32_t> checksums_;
};

class VerifyJob : public ChunkJob {
 public:
  VerifyJob(Napi::Object options, uint64_t length)
      : ChunkJob(length, options.Get("threads").As<Napi::Number>().Int32Value(),
                 options.Get("niceness").As<Napi::Number>().Int32Value()),
        path_(options.Get("file").As<Napi::String>().Utf8Value()) {
    Napi::Uint32Array checksums = options.Get("checksums").As<Napi::Uint32Array>();
    checksums_.assign(checksums.Data(), checksums.Data() + checksums.ElementLength());
  }

 protected:
  void Run() override {
    file_ = Open(path_, O_RDONLY);
    struct stat status;
    if (fstat(file_.get(), &status) < 0) throw SystemError(errno, "fstat");
    if (uint64_t(status.st_size) != length_) {
      first_bad_ = int64_t(std::min(uint64_t(status.st_size), length_) / kChunkBytes);
      return;
    }
    RunThreads();
  }

  void Work() override {
    ChunkBuffer buffer;
    for (int64_t chunk; (chunk = NextChunk()) >= 0;) {
      if (ChecksumOf(uint64_t(chunk), buffer.data()) != checksums_[size_t(chunk)]) {
        int64_t seen = first_bad_.load();
        while ((seen < 0 || chunk < seen) && !first_bad_.compare_exchange_weak(seen, chunk)) continue;
        StopThreads();  // chunks below this one were all dealt out before it, and are finished by their threads
      }
      AddProgress(ChunkLength(uint64_t(chunk)));
    }
  }

  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    int64_t bad = first_bad_.load();
    result.Set("ok", Napi::Boolean::New(env, bad < 0));
    result.Set("firstBadChunk", bad < 0 ? env.Null() : Napi::Value(Napi::Number::New(env, double(bad))));
    return result;
  }

 private:
  uint32_t ChecksumOf(uint64_t chunk, uint8_t *buffer) {
    size_t length = ChunkLength(chunk);
    off_t from = off_t(chunk * kChunkBytes), data = lseek(file_.get(), from, SEEK_DATA);
    bool hole = data < 0 ? errno == ENXIO : data >= from + off_t(length);
    if (hole) return ZeroChecksum(length);
    for (size_t done = 0; done < length;) {
      ssize_t got = pread(file_.get(), buffer + done, length - done, from + off_t(done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw SystemError(got < 0 ? errno : EIO, "read " + path_);
      done += size_t(got);
    }
    return Crc32c(0, buffer, length);
  }

  std::string path_;
  Descriptor file_;
  std::vector<uint32_t> checksums_;
  std::atomic<int64_t> first_bad_{-1};
};

static Napi::Value WriteProcessMemory(const Napi::CallbackInfo &info) {
  std::string path = "/proc/" + std::to_string(info[0].As<Napi::Number>().Int32Value()) + "/mem";
  uint64_t address = uint64_t(Int64Of(info[1]));
  Napi::Uint8Array bytes = info[2].As<Napi::Uint8Array>();
  int memory = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (memory < 0) ThrowErrno(info.Env(), errno, "open " + path);
  Descriptor owner(memory);
  for (size_t done = 0; done < bytes.ByteLength();) {
    ssize_t put = pwrite(memory, bytes.Data() + done, bytes.ByteLength() - done, off_t(address + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) ThrowErrno(info.Env(), put < 0 ? errno : ESRCH, "write " + path);
    done += size_t(put);
  }
  return info.Env().Undefined();
}

static uint64_t LengthOf(const Napi::CallbackInfo &info) {
  return uint64_t(info[0].As<Napi::Object>().Get("length").As<Napi::Number>().Int64Value());
}

static Facility ram_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startSaveRam", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<SaveJob>(info[0].As<Napi::Object>(), LengthOf(info)));
              }));
  exports.Set("startVerifyRam", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<VerifyJob>(info[0].As<Napi::Object>(), LengthOf(info)));
              }));
  exports.Set("writeMemory", Napi::Function::New<WriteProcessMemory>(env));
});

}  // namespace staghorn
