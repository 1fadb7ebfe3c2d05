// forkMemory and release: starts a tracer (fork-tracer.cc) for each fork, and keeps the list of those that live.
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <mutex>

#include "addon.h"
#include "fork-tracer.h"
#include "job.h"

namespace staghorn {

static constexpr size_t kTracerStackBytes = 256 * 1024;

// A session and its keeper: the thread in whose place the tracer runs (CLONE_VFORK), and whose end it is tied to.
struct LiveFork {
  ForkSession session;
  std::thread keeper;

  LiveFork() {
    session.release_fd = eventfd(0, EFD_CLOEXEC);
    session.forked_fd = eventfd(0, EFD_CLOEXEC);
  }
  ~LiveFork() {
    Release();
    close(session.release_fd);
    close(session.forked_fd);
  }
  void Release() {
    uint64_t one = 1;
    if (write(session.release_fd, &one, sizeof one) < 0) return;
    if (keeper.joinable()) keeper.join();
  }
};

// Node environments (worker threads) share the addon, hence the lock.
static std::mutex live_mutex;
static std::map<pid_t, std::pair<napi_env, std::unique_ptr<LiveFork>>> &LiveForks() {
  static auto *forks = new std::map<pid_t, std::pair<napi_env, std::unique_ptr<LiveFork>>>;
  return *forks;
}

static void KeepTracer(ForkSession *session) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  session->keeper = getpid();
  void *stack = mmap(nullptr, kTracerStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack != MAP_FAILED) {
    pid_t tracer = clone(TracerMain, static_cast<char *>(stack) + kTracerStackBytes,
                         CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS, session);
    int error = errno;
    if (tracer > 0) waitpid(tracer, nullptr, __WALL);
    munmap(stack, kTracerStackBytes);
    if (tracer > 0) error = ESRCH;
    if (session->state.load() == ForkSession::kStarting) session->error = error;
  } else {
    session->error = ENOMEM;
  }
  if (session->state.load() != ForkSession::kStarting) return;
  session->what = "the tracer did not start, or was killed";
  session->state.store(ForkSession::kFailed);
  uint64_t one = 1;
  if (write(session->forked_fd, &one, sizeof one) < 0) abort();
}

class ForkJob : public Job {
 public:
  ForkJob(napi_env env, Napi::Object options) : env_(env) {
    ForkSession &session = live_->session;
    session.pid = options.Get("pid").As<Napi::Number>().Int32Value();
    session.timeout_ns = int64_t(options.Get("timeoutMs").As<Napi::Number>().DoubleValue() * 1e6);
    Napi::Array regions = options.Get("regions").As<Napi::Array>();
    for (uint32_t i = 0; i < regions.Length(); i++) {
      Napi::Object region = regions.Get(i).As<Napi::Object>();
      bool lossless;
      session.regions.push_back({region.Get("address").As<Napi::BigInt>().Uint64Value(&lossless),
                                 uint64_t(region.Get("length").As<Napi::Number>().Int64Value())});
    }
  }

 protected:
  void Run() override {
    ForkSession &session = live_->session;
    if (session.release_fd < 0 || session.forked_fd < 0) throw SystemError(EMFILE, "eventfd");
    live_->keeper = std::thread(KeepTracer, &session);
    pollfd forked = {session.forked_fd, POLLIN, 0};
    while (poll(&forked, 1, -1) != 1) continue;
    if (session.state.load() == ForkSession::kFailed) throw SystemError(session.error, session.what);
    child_ = session.child;
    fork_ns_ = session.fork_ns;
    stopped_ns_ = session.stopped_ns;
    std::lock_guard<std::mutex> lock(live_mutex);
    LiveForks()[child_] = {env_, std::move(live_)};
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("childPid", Napi::Number::New(env, child_));
    result.Set("forkNs", BigIntOf(env, fork_ns_));
    result.Set("stoppedNs", Napi::Number::New(env, double(stopped_ns_)));
    return result;
  }

 private:
  napi_env env_;
  std::unique_ptr<LiveFork> live_ = std::make_unique<LiveFork>();
  pid_t child_ = 0;
  int64_t fork_ns_ = 0, stopped_ns_ = 0;
};

class ReleaseJob : public Job {
 public:
  explicit ReleaseJob(std::unique_ptr<LiveFork> live) : live_(std::move(live)) {}

 protected:
  void Run() override { live_->Release(); }
  Napi::Value Result(Napi::Env env) override { return env.Undefined(); }

 private:
  std::unique_ptr<LiveFork> live_;
};

static Napi::Value StartRelease(const Napi::CallbackInfo &info) {
  std::unique_ptr<LiveFork> live;
  {
    std::lock_guard<std::mutex> lock(live_mutex);
    auto found = LiveForks().find(info[0].As<Napi::Number>().Int32Value());
    if (found != LiveForks().end()) {
      live = std::move(found->second.second);
      LiveForks().erase(found);
    }
  }
  if (!live) ThrowErrno(info.Env(), ESRCH, "release of a forked child");
  return Job::Start(info.Env(), std::make_unique<ReleaseJob>(std::move(live)));
}

static void ReleaseAllOf(void *data) {
  std::lock_guard<std::mutex> lock(live_mutex);
  for (auto fork = LiveForks().begin(); fork != LiveForks().end();)
    fork = fork->second.first == static_cast<napi_env>(data) ? LiveForks().erase(fork) : std::next(fork);
}

static Facility fork_facility([](Napi::Env env, Napi::Object exports) {
  napi_add_env_cleanup_hook(env, ReleaseAllOf, static_cast<napi_env>(env));
  exports.Set("startFork", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<ForkJob>(info.Env(), info[0].As<Napi::Object>()));
              }));
  exports.Set("startRelease", Napi::Function::New<StartRelease>(env));
});

}  // namespace staghorn
