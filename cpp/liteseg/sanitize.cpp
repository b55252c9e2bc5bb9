// Only in builds with sanitizers: TBB opens a library with RTLD_DEEPBIND, at which they give up.

#include <dlfcn.h>

extern "C" void* dlopen(const char* file, int mode) {
  using Function = void* (*)(const char*, int);
  static const auto next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "dlopen"));
  return next(file, mode & ~RTLD_DEEPBIND);
}
