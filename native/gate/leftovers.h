// The journal of leftovers as JavaScript has it, and as the barrier thread writes it.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "gate/leftover-journal.h"

namespace staghorn {

// The journal behind a JavaScript object of class LeftoverJournal; throws if it is closed.
std::shared_ptr<LeftoverJournal> JournalOf(Napi::Value object);

// [{fd, headerBytes, port}]
std::vector<RingTap> RingTapsOf(Napi::Array array);

}  // namespace staghorn
