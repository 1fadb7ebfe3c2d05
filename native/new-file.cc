#include "new-file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "job.h"

namespace staghorn {

// O_TMPFILE and a link by way of /proc: open(2). A file without a name ends with its last descriptor.
NewFile::NewFile(const std::string &path, uint64_t length) : path_(path) {
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  int fd = open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) throw SystemError(errno, "open a new file in " + directory);
  file_ = Descriptor(fd);
  if (ftruncate(fd, off_t(length)) < 0) throw SystemError(errno, "ftruncate");
}

void NewFile::Appear() {
  const std::string self = "/proc/self/fd/" + std::to_string(file_.get());
  if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW) < 0 && errno != EEXIST) {
    throw SystemError(errno, "link " + path_);
  }
}

}  // namespace staghorn
