// What startPauseThreads gives to JavaScript, for other jobs that take it.
#pragma once

#include <napi.h>

#include <memory>

#include "process/paused-threads.h"

namespace staghorn {

// Null if they were let go already.
std::shared_ptr<ThreadPauser> PauserOf(const Napi::Value &native);

}  // namespace staghorn
