// A file that exists for others only once it is complete; whatever ends its writer before leaves nothing.
#pragma once

#include <cstdint>
#include <string>

#include "descriptor.h"

namespace staghorn {

class NewFile {
 public:
  NewFile(const std::string &path, uint64_t length);
  int fd() const { return file_.get(); }
  // Gives it its name. Another file that has appeared there in the meantime stays.
  void Appear();

 private:
  std::string path_;
  Descriptor file_;
};

}  // namespace staghorn
