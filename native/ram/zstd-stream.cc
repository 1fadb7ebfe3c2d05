// zstd streams (RFC 8878), a step at a time: each step runs in a thread of its own and fills one output buffer.
#include <zstd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "addon.h"
#include "job.h"

namespace staghorn {

// One direction of one stream. JavaScript takes one step after the other, so a context is never used by two threads.
struct ZstdStream {
  ZSTD_CCtx *compressor = nullptr;
  ZSTD_DCtx *decompressor = nullptr;
  ~ZstdStream() {
    ZSTD_freeCCtx(compressor);
    ZSTD_freeDCtx(decompressor);
  }
};
using SharedStream = std::shared_ptr<ZstdStream>;

class ZstdStepJob : public Job {
 public:
  ZstdStepJob(SharedStream stream, Napi::Object options)
      : stream_(std::move(stream)), ends_(options.Get("ends").As<Napi::Boolean>().Value()) {
    Napi::Uint8Array input = options.Get("input").As<Napi::Uint8Array>();
    Napi::Uint8Array output = options.Get("output").As<Napi::Uint8Array>();
    Keep(input);
    Keep(output);
    input_ = {input.Data(), input.ByteLength(), 0};
    output_ = {output.Data(), output.ByteLength(), 0};
  }

 protected:
  void Run() override {
    left_ = stream_->compressor != nullptr
                ? ZSTD_compressStream2(stream_->compressor, &output_, &input_, ends_ ? ZSTD_e_end : ZSTD_e_continue)
                : ZSTD_decompressStream(stream_->decompressor, &output_, &input_);
    if (ZSTD_isError(left_)) throw SystemError(EBADMSG, std::string("zstd: ") + ZSTD_getErrorName(left_));
  }

  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("readBytes", double(input_.pos));
    result.Set("writtenBytes", double(output_.pos));
    result.Set("isWhole", left_ == 0);
    return result;
  }

 private:
  SharedStream stream_;
  bool ends_;
  ZSTD_inBuffer input_;
  ZSTD_outBuffer output_;
  size_t left_ = 0;
};

static Napi::Value HandleOf(Napi::Env env, SharedStream stream) {
  return Napi::Function::New(env, [stream](const Napi::CallbackInfo &info) {
    return Job::Start(info.Env(), std::make_unique<ZstdStepJob>(stream, info[0].As<Napi::Object>()));
  });
}

static Napi::Value CreateCompressor(const Napi::CallbackInfo &info) {
  auto stream = std::make_shared<ZstdStream>();
  stream->compressor = ZSTD_createCCtx();
  if (stream->compressor == nullptr) ThrowErrno(info.Env(), ENOMEM, "zstd");
  ZSTD_CCtx_setParameter(stream->compressor, ZSTD_c_compressionLevel, info[0].As<Napi::Number>().Int32Value());
  ZSTD_CCtx_setParameter(stream->compressor, ZSTD_c_checksumFlag, 1);
  return HandleOf(info.Env(), stream);
}

static Napi::Value CreateDecompressor(const Napi::CallbackInfo &info) {
  auto stream = std::make_shared<ZstdStream>();
  stream->decompressor = ZSTD_createDCtx();
  if (stream->decompressor == nullptr) ThrowErrno(info.Env(), ENOMEM, "zstd");
  return HandleOf(info.Env(), stream);
}

static Facility zstd_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("createZstdCompressor", Napi::Function::New<CreateCompressor>(env));
  exports.Set("createZstdDecompressor", Napi::Function::New<CreateDecompressor>(env));
});

}  // namespace staghorn
