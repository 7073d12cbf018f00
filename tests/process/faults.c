/* Counts the calls that reach a file system, and makes the one asked for fail, or the last thing that its process does.
   LD_PRELOAD it, then call fault_arm from Python (ctypes). Calls before that, and of other processes, are not counted. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls, armed_at = -1;
static int error, sticky;

/* The call number `at` (from 0) and, with `stay`, all after it, fail with `number`; 0: SIGKILL before the call. */
void fault_arm(long at, int number, int stay) {
  error = number;
  sticky = stay;
  atomic_store(&calls, 0);
  atomic_store(&armed_at, at);
}
long fault_count(void) { return atomic_load(&calls); }

static int hit(void) {
  long at = atomic_load(&armed_at), now;
  if (at < 0) return 0;
  now = atomic_fetch_add(&calls, 1);
  if (now != at && !(sticky && now > at)) return 0;
  if (error == 0) kill(getpid(), SIGKILL);
  errno = error;
  return 1;
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define WRAP(type, name, parameters, arguments) \
  type name parameters { \
    REAL(name); \
    return hit() ? (type)-1 : real arguments; \
  }

WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size))
WRAP(ssize_t, readv, (int fd, const struct iovec *to, int count), (fd, to, count))
WRAP(ssize_t, preadv, (int fd, const struct iovec *to, int count, off_t at), (fd, to, count, at))
WRAP(ssize_t, preadv64, (int fd, const struct iovec *to, int count, off64_t at), (fd, to, count, at))
WRAP(ssize_t, preadv2, (int fd, const struct iovec *to, int count, off_t at, int flags), (fd, to, count, at, flags))
WRAP(ssize_t, preadv64v2, (int fd, const struct iovec *to, int count, off64_t at, int flags), (fd, to, count, at, flags))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, chmod, (const char *path, mode_t mode), (path, mode))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(int, rmdir, (const char *path), (path))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
WRAP(int, rename, (const char *from, const char *to), (from, to))
WRAP(int, link, (const char *from, const char *to), (from, to))
WRAP(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))

WRAP(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode))
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return hit() ? -1 : real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int at, const char *path, int flags, ...) { \
    REAL(name); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return hit() ? -1 : real(at, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

#define LISTING(name, parameter, argument) \
  DIR *name(parameter) { \
    REAL(name); \
    return hit() ? NULL : real(argument); \
  }
LISTING(opendir, const char *path, path)
LISTING(fdopendir, int fd, fd)

#define ENTRY(name, kind) \
  struct kind *name(DIR *of) { \
    REAL(name); \
    return hit() ? NULL : real(of); \
  }
ENTRY(readdir, dirent)
ENTRY(readdir64, dirent64)
WRAP(int, fstat, (int fd, struct stat *to), (fd, to))
WRAP(int, fstat64, (int fd, struct stat64 *to), (fd, to))
WRAP(int, lstat, (const char *path, struct stat *to), (path, to))
WRAP(int, lstat64, (const char *path, struct stat64 *to), (path, to))
WRAP(int, stat, (const char *path, struct stat *to), (path, to))
WRAP(int, stat64, (const char *path, struct stat64 *to), (path, to))
WRAP(int, fstatat, (int at, const char *path, struct stat *to, int flags), (at, path, to, flags))
WRAP(int, fstatat64, (int at, const char *path, struct stat64 *to, int flags), (at, path, to, flags))
