// prepareFork, forkMemory and release: starts a tracer (fork-tracer.cc) for each fork, and keeps the list of those that live.
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <mutex>

#include "addon.h"
#include "process/fork-tracer.h"
#include "job.h"

namespace staghorn {

static constexpr size_t kTracerStackBytes = 256 * 1024;

// A session and its keeper: the thread in whose place the tracer runs (CLONE_VFORK), and whose end it is tied to.
struct LiveFork {
  ForkSession session;
  std::thread keeper;

  LiveFork() {
    session.release_fd = eventfd(0, EFD_CLOEXEC);
    session.go_fd = eventfd(0, EFD_CLOEXEC);
    session.announce_fd = eventfd(0, EFD_CLOEXEC);
  }
  ~LiveFork() {
    Release();
    close(session.release_fd);
    close(session.go_fd);
    close(session.announce_fd);
  }
  void Release() {
    uint64_t one = 1;
    if (write(session.release_fd, &one, sizeof one) < 0) return;
    if (keeper.joinable()) keeper.join();
  }
};

// Node environments (worker threads) share the addon, hence the lock.
static std::mutex live_mutex;
using LiveForkMap = std::map<uint32_t, std::pair<napi_env, std::unique_ptr<LiveFork>>>;
static LiveForkMap &LiveForks() {
  static auto *forks = new LiveForkMap;
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
    if (session->state.load() < ForkSession::kForked) session->error = error;
  } else {
    session->error = ENOMEM;
  }
  if (session->state.load() >= ForkSession::kForked) return;
  session->what = "the tracer did not start, or was killed";
  session->state.store(ForkSession::kFailed);
  uint64_t one = 1;
  if (write(session->announce_fd, &one, sizeof one) < 0) abort();
}

static void WaitForAnnouncement(const ForkSession &session) {
  uint64_t count;
  while (read(session.announce_fd, &count, sizeof count) < 0 && errno == EINTR) continue;
  if (session.state.load() == ForkSession::kFailed) throw SystemError(session.error, session.what);
}

static std::vector<Region> RegionsOf(Napi::Array given) {
  std::vector<Region> regions;
  for (uint32_t i = 0; i < given.Length(); i++) {
    Napi::Object region = given.Get(i).As<Napi::Object>();
    bool lossless;
    regions.push_back({region.Get("address").As<Napi::BigInt>().Uint64Value(&lossless),
                       uint64_t(region.Get("length").As<Napi::Number>().Int64Value())});
  }
  return regions;
}

// Starts a tracer and lets it look at the process. The result is the fork's number.
class PrepareJob : public Job {
 public:
  PrepareJob(napi_env env, Napi::Object options) : env_(env) {
    ForkSession &session = live_->session;
    session.pid = options.Get("pid").As<Napi::Number>().Int32Value();
    session.timeout_ns = int64_t(options.Get("timeoutMs").As<Napi::Number>().DoubleValue() * 1e6);
    session.regions = RegionsOf(options.Get("regions").As<Napi::Array>());
    session.left_out = RegionsOf(options.Get("leftOut").As<Napi::Array>());
  }

 protected:
  void Run() override {
    ForkSession &session = live_->session;
    if (session.release_fd < 0 || session.go_fd < 0 || session.announce_fd < 0) throw SystemError(EMFILE, "eventfd");
    live_->keeper = std::thread(KeepTracer, &session);
    WaitForAnnouncement(session);
    static std::atomic<uint32_t> last_number{0};
    number_ = ++last_number;
    std::lock_guard<std::mutex> lock(live_mutex);
    LiveForks()[number_] = {env_, std::move(live_)};
  }
  Napi::Value Result(Napi::Env env) override { return Napi::Number::New(env, number_); }

 private:
  napi_env env_;
  std::unique_ptr<LiveFork> live_ = std::make_unique<LiveFork>();
  uint32_t number_ = 0;
};

// Lets a prepared tracer fork. The caller does not release the fork before this has settled.
class ForkJob : public Job {
 public:
  explicit ForkJob(ForkSession *session) : session_(session) {}

 protected:
  void Run() override {
    uint64_t one = 1;
    if (write(session_->go_fd, &one, sizeof one) < 0) throw SystemError(errno, "eventfd");
    WaitForAnnouncement(*session_);
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("childPid", Napi::Number::New(env, session_->child));
    result.Set("forkNs", BigIntOf(env, session_->fork_ns));
    result.Set("stoppedNs", Napi::Number::New(env, double(session_->stopped_ns)));
    return result;
  }

 private:
  ForkSession *session_;
};

static Napi::Value StartFork(const Napi::CallbackInfo &info) {
  std::lock_guard<std::mutex> lock(live_mutex);
  auto found = LiveForks().find(info[0].As<Napi::Number>().Uint32Value());
  if (found == LiveForks().end()) ThrowErrno(info.Env(), ESRCH, "a fork that was prepared");
  return Job::Start(info.Env(), std::make_unique<ForkJob>(&found->second.second->session));
}

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
    auto found = LiveForks().find(info[0].As<Napi::Number>().Uint32Value());
    if (found != LiveForks().end()) {
      live = std::move(found->second.second);
      LiveForks().erase(found);
    }
  }
  if (!live) ThrowErrno(info.Env(), ESRCH, "release of a fork");
  return Job::Start(info.Env(), std::make_unique<ReleaseJob>(std::move(live)));
}

static void ReleaseAllOf(void *data) {
  std::lock_guard<std::mutex> lock(live_mutex);
  for (auto fork = LiveForks().begin(); fork != LiveForks().end();)
    fork = fork->second.first == static_cast<napi_env>(data) ? LiveForks().erase(fork) : std::next(fork);
}

static Facility fork_facility([](Napi::Env env, Napi::Object exports) {
  napi_add_env_cleanup_hook(env, ReleaseAllOf, static_cast<napi_env>(env));
  exports.Set("startPrepareFork", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<PrepareJob>(info.Env(), info[0].As<Napi::Object>()));
              }));
  exports.Set("startFork", Napi::Function::New<StartFork>(env));
  exports.Set("startRelease", Napi::Function::New<StartRelease>(env));
});

}  // namespace staghorn
