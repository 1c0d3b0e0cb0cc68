/* Records what a process writes below $POWER_FOLDER, in order, to $POWER_LOG: preloaded into the workload of the
 * power-cut test. One record: kind, length of the path, path, offset, length, bytes. The lock makes the order of the
 * records the order of the calls. With $POWER_FAIL, one sync in so many fails, and the disk may keep or lose what it
 * was for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS 4096
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *names[FDS];
static int log_fd = -1;
static const char *folder;
static size_t folder_length;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t real_write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, bytes, length);
}

static int raw_open(const char *path, int flags, int mode) {
    REAL(int, "open64", const char *, int, ...);
    return real(path, flags, mode);
}

static void start(void) {
    if (folder) return;
    folder = getenv("POWER_FOLDER");
    if (!folder) folder = "/nowhere";
    folder_length = strlen(folder);
    const char *log = getenv("POWER_LOG");
    if (log) log_fd = raw_open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
}

static const char *below(const char *path) {
    start();
    if (strncmp(path, folder, folder_length)) return NULL;
    path += folder_length;
    return *path == '/' ? path + 1 : *path ? NULL : path;
}

static void all(const void *bytes, size_t length) {
    while (length) {
        ssize_t done = real_write(log_fd, bytes, length);
        if (done <= 0) abort();
        bytes = (const char *)bytes + done;
        length -= (size_t)done;
    }
}

static void record(char kind, const char *path, uint64_t offset, const void *bytes, uint32_t length) {
    uint16_t path_length = (uint16_t)strlen(path);
    all(&kind, 1);
    all(&path_length, 2);
    all(path, path_length);
    all(&offset, 8);
    all(&length, 4);
    if (bytes) all(bytes, length);
}

static int opened(const char *path, int flags, int mode) {
    const char *name = below(path);
    if (!name) return raw_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before;
    int is_new = (flags & O_CREAT) && stat(path, &before) != 0;
    int fd = raw_open(path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        free(names[fd]);
        names[fd] = strdup(name);
        if (is_new) record('C', name, 0, NULL, 0);
        else if (flags & O_TRUNC) record('T', name, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return opened(path, flags, mode);
}

int close(int fd) {
    REAL(int, "close", int);
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS) {
        free(names[fd]);
        names[fd] = NULL;
    }
    int result = real(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static const char *name_of(int fd) { return fd >= 0 && fd < FDS ? names[fd] : NULL; }

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!name_of(fd)) return real_write(fd, bytes, length);
    pthread_mutex_lock(&lock);
    int append = fcntl(fd, F_GETFL) & O_APPEND;
    off_t offset = lseek(fd, 0, append ? SEEK_END : SEEK_CUR);
    ssize_t done = real_write(fd, bytes, length);
    if (done > 0) record('W', names[fd], (uint64_t)offset, bytes, (uint32_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t placed(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *bytes, size_t length, off_t at) {
    if (!name_of(fd)) return real(fd, bytes, length, at);
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, bytes, length, at);
    if (done > 0) record('W', names[fd], (uint64_t)at, bytes, (uint32_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return placed(real, fd, bytes, length, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return placed(real, fd, bytes, length, at);
}

static int cut(int (*real)(int, off_t), int fd, off_t length) {
    if (!name_of(fd)) return real(fd, length);
    pthread_mutex_lock(&lock);
    int result = real(fd, length);
    if (result == 0) record('T', names[fd], (uint64_t)length, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) {
    REAL(int, "ftruncate", int, off_t);
    return cut(real, fd, length);
}

int ftruncate64(int fd, off_t length) {
    REAL(int, "ftruncate64", int, off_t);
    return cut(real, fd, length);
}

/* One sync in $POWER_FAIL fails, and one in three of the contents, which are fewer; which ones differs from run to run of the
 * threads, and the record says it. */
static int sync_fails(const char *name) {
    static int every = -1, count, contents;
    if (every < 0) {
        const char *text = getenv("POWER_FAIL");
        every = text ? atoi(text) : 0;
    }
    if (every && !strncmp(name, "bodies/", 7)) return ++contents % 3 == 0;
    return every && ++count % every == 0;
}

/* A log and a content have one writer each, so no write comes between the call and its record. */
static int synced(int (*real)(int), int fd) {
    pthread_mutex_lock(&lock);
    if (name_of(fd) && sync_fails(names[fd])) {
        record('F', names[fd], 0, NULL, 0);
        pthread_mutex_unlock(&lock);
        errno = EIO;
        return -1;
    }
    pthread_mutex_unlock(&lock);
    int result = real(fd);
    if (!name_of(fd)) return result;
    pthread_mutex_lock(&lock);
    if (result == 0 && names[fd]) record('S', names[fd], 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return synced(real, fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return synced(real, fd);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    const char *name = below(path);
    if (!name) return real(path);
    pthread_mutex_lock(&lock);
    int result = real(path);
    if (result == 0) record('U', name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
