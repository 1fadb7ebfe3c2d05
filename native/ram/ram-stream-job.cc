// openRamStream: a pipe whose writing end is a QEMU's to migrate into; startReceive reads it, in a thread of its own.
#include <fcntl.h>
#include <unistd.h>

#include "addon.h"
#include "job.h"
#include "ram/ram-stream.h"

namespace staghorn {

namespace {

using SharedStream = std::shared_ptr<RamStream>;

class ReceiveJob : public Job {
 public:
  ReceiveJob(SharedStream stream, uint64_t pages_left) : stream_(std::move(stream)), pages_left_(pages_left) {}

 protected:
  void Run() override { stream_->ReceiveUntil(pages_left_, control()->cancel_fd); }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("pagesArrived", Napi::Number::New(env, double(stream_->pages_arrived())));
    result.Set("atEnd", Napi::Boolean::New(env, stream_->at_end()));
    return result;
  }

 private:
  SharedStream stream_;
  uint64_t pages_left_;
};

// Fills a pipe: whoever writes waits until it is read. Returns by how much; 0 if it cannot be.
size_t Plug(int writing_end) {
  int bytes = fcntl(writing_end, F_SETPIPE_SZ, 1);  // a page
  if (bytes < 0) return 0;
  std::vector<uint8_t> plug(size_t(bytes), 0);
  return write(writing_end, plug.data(), plug.size()) == bytes ? size_t(bytes) : 0;
}

// [{name, fd}], plugged: the descriptors stay the caller's, and open as long as the stream.
Napi::Value OpenRamStream(const Napi::CallbackInfo &info) {
  std::map<std::string, int> files;
  Napi::Array blocks = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < blocks.Length(); i++) {
    Napi::Object block = blocks.Get(i).As<Napi::Object>();
    files[block.Get("name").As<Napi::String>().Utf8Value()] = block.Get("fd").As<Napi::Number>().Int32Value();
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) ThrowErrno(info.Env(), errno, "pipe2");
  size_t plug_bytes = info[1].ToBoolean() ? Plug(ends[1]) : 0;
  auto *stream = new SharedStream(std::make_shared<RamStream>(Descriptor(ends[0]), plug_bytes, std::move(files)));
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("native", Napi::External<SharedStream>::New(info.Env(), stream, [](Napi::Env, SharedStream *kept) { delete kept; }));
  result.Set("writeFd", Napi::Number::New(info.Env(), ends[1]));
  return result;
}

SharedStream &StreamOf(const Napi::Value &value) { return *value.As<Napi::External<SharedStream>>().Data(); }

Napi::Value StartReceive(const Napi::CallbackInfo &info) {
  SharedStream stream = StreamOf(info[0]);
  if (!stream) ThrowErrno(info.Env(), EBADF, "a RAM stream that was closed");
  uint64_t pages_left = uint64_t(info[1].As<Napi::Number>().Int64Value());
  return Job::Start(info.Env(), std::make_unique<ReceiveJob>(std::move(stream), pages_left));
}

// The pipe's end is closed with the last job that reads it: QEMU's migration then fails, and its VM goes on.
void CloseRamStream(const Napi::CallbackInfo &info) { StreamOf(info[0]).reset(); }

Facility ram_stream_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("openRamStream", Napi::Function::New<OpenRamStream>(env));
  exports.Set("startReceive", Napi::Function::New<StartReceive>(env));
  exports.Set("closeRamStream", Napi::Function::New<CloseRamStream>(env));
});

}  // namespace

}  // namespace staghorn
