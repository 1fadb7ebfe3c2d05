// The RAM of a QEMU that maps its image privately, put back as the image has it: only pages that were copied on a
// write differ, and only those are written.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>

#include "addon.h"
#include "new-file.h"
#include "ram/ram-chunk-job.h"

namespace staghorn {

namespace {

constexpr size_t kPagesPerChunk = kChunkBytes / kPageBytes;

// Linux Documentation/admin-guide/mm/pagemap.rst: bit 63 present, 62 swapped, 61 a page of the file itself.
bool IsOwn(uint64_t entry) {
  const bool present = entry >> 63 & 1, swapped = entry >> 62 & 1, of_file = entry >> 61 & 1;
  return swapped || (present && !of_file);
}

class MappedFile {
 public:
  MappedFile(const std::string &path, uint64_t length) : length_(length) {
    Descriptor file = OpenFile(path, O_RDONLY);
    struct stat status;
    if (fstat(file.get(), &status) < 0) throw SystemError(errno, "fstat " + path);
    if (uint64_t(status.st_size) != length) throw SystemError(EINVAL, path + " has not the length of the RAM");
    void *address = mmap(nullptr, length, PROT_READ, MAP_SHARED, file.get(), 0);
    if (address == MAP_FAILED) throw SystemError(errno, "mmap " + path);
    bytes_ = static_cast<const uint8_t *>(address);
  }
  MappedFile(const MappedFile &) = delete;
  ~MappedFile() { munmap(const_cast<uint8_t *>(bytes_), length_); }
  const uint8_t *bytes() const { return bytes_; }

 private:
  const uint8_t *bytes_;
  uint64_t length_;
};

}  // namespace

class ResetJob : public ChunkJob {
 public:
  explicit ResetJob(Napi::Object options)
      : ChunkJob(options),
        process_("/proc/" + std::to_string(options.Get("pid").As<Napi::Number>().Int32Value())),
        path_(options.Get("file").As<Napi::String>().Utf8Value()),
        address_(uint64_t(Int64Of(options.Get("address")))) {}

 protected:
  void Run() override {
    MappedFile image(path_, length_);
    image_ = image.bytes();
    pagemap_ = OpenFile(process_ + "/pagemap", O_RDONLY);
    memory_ = OpenFile(process_ + "/mem", O_WRONLY);
    struct Closing {  // not with the job, which a garbage collector ends
      ResetJob &job;
      ~Closing() { 
        job.pagemap_ = Descriptor();
        job.memory_ = Descriptor();
       }
    } closing{*this};
    RunThreads();
  }

  void Work() override {
    uint64_t entries[kPagesPerChunk];
    for (int64_t chunk; (chunk = NextChunk()) >= 0;) {
      const uint64_t begin = uint64_t(chunk) * kChunkBytes;
      const size_t pages = ChunkLength(uint64_t(chunk)) / kPageBytes;
      ReadEntries(entries, pages, (address_ + begin) / kPageBytes);
      for (size_t page = 0; page < pages; page++) {
        size_t end = page;
        while (end < pages && IsOwn(entries[end])) end++;
        if (end > page) PutBack(begin + page * kPageBytes, (end - page) * kPageBytes);
        page = end;
      }
      AddProgress(ChunkLength(uint64_t(chunk)));
    }
  }

  Napi::Value Result(Napi::Env env) override { return Napi::Number::New(env, double(put_back_.load())); }

 private:
  void ReadEntries(uint64_t *entries, size_t count, uint64_t first) {
    const ssize_t wanted = ssize_t(count * sizeof *entries);
    ssize_t got = pread(pagemap_.get(), entries, size_t(wanted), off_t(first * sizeof *entries));
    if (got != wanted) throw SystemError(got < 0 ? errno : ESRCH, "read " + process_ + "/pagemap");
  }

  void PutBack(uint64_t offset, size_t length) {
    for (size_t done = 0; done < length;) {
      ssize_t put = pwrite(memory_.get(), image_ + offset + done, length - done, off_t(address_ + offset + done));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) throw SystemError(put < 0 ? errno : ESRCH, "write " + process_ + "/mem");
      done += size_t(put);
    }
    put_back_ += length;
  }

  std::string process_, path_;
  uint64_t address_;
  const uint8_t *image_ = nullptr;
  Descriptor pagemap_, memory_;
  std::atomic<uint64_t> put_back_{0};
};

static Facility reset_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startResetRam", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<ResetJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
