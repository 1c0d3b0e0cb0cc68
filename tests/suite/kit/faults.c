/* A disk that fails on demand: preloaded into the relay under test. Calls on files below $FAULTS_FOLDER fail as the file
 * $FAULTS_CONTROL says, which is mapped and may change at any time: byte 0 the fault, byte 1 "only once", bytes 8-11 how many
 * calls have failed, from byte 64 on a part of the paths that are meant (empty: all).
 *
 * For lost syncs it remembers what each write since the last sync of a file has covered, and puts it back when a sync is to
 * fail: so the pages are gone, as after a failed write-back, and a later sync succeeds without them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS 65536
#define PATTERN 64
#define CONTROL_LENGTH 4096

struct undo {
    struct undo *next;
    off_t at, size_before;
    size_t length;
    char bytes[];
};

struct file {
    struct file *next;
    char *path;
    struct undo *undo;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files, *open_files[FDS];
static volatile unsigned char *control;
static const char *folder;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int real_open(const char *path, int flags, int mode) {
    REAL(int, "open64", const char *, int, ...);
    return real(path, flags, mode);
}

static ssize_t real_pwrite(int fd, const void *bytes, size_t length, off_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return real(fd, bytes, length, at);
}

static int real_ftruncate(int fd, off_t length) {
    REAL(int, "ftruncate64", int, off_t);
    return real(fd, length);
}

static void start(void) {
    if (folder) return;
    const char *path = getenv("FAULTS_CONTROL"), *below = getenv("FAULTS_FOLDER");
    if (path && below) {
        int fd = real_open(path, O_RDWR | O_CLOEXEC, 0);
        void *mapped = mmap(NULL, CONTROL_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd >= 0 && mapped != MAP_FAILED) control = mapped;
    }
    folder = below ? below : "/nowhere";
}

static int is_ours(const char *path) {
    start();
    size_t length = strlen(folder);
    return control && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* Kinds of calls: 'w' content, 's' sync, 'n' a name comes or goes, 'o' a file opened for writing. Says which error, 0: none. */
static int fault(const char *path, char kind) {
    int mode = control[0], error = 0;
    if (!mode || !strstr(path, (const char *)control + PATTERN)) return 0;
    switch (mode) {
    case 'w': error = kind == 'w' ? EIO : 0; break;
    case 'e': error = kind == 'w' ? ENOSPC : 0; break;
    case 's':
    case 'l': error = kind == 's' ? EIO : 0; break;
    case 'r': error = kind == 's' ? 0 : EROFS; break;
    }
    if (error) {
        if (control[1]) control[0] = 0;
        __sync_fetch_and_add((volatile uint32_t *)(control + 8), 1);
    }
    return error;
}

static struct file *of(int fd) { return fd >= 0 && fd < FDS ? open_files[fd] : NULL; }

static struct file *file_at(const char *path) {
    struct file *file = files;
    while (file && strcmp(file->path, path)) file = file->next;
    if (!file) {
        file = calloc(1, sizeof *file);
        file->path = strdup(path);
        file->next = files;
        files = file;
    }
    return file;
}

static void forget(struct file *file) {
    while (file->undo) {
        struct undo *next = file->undo->next;
        free(file->undo);
        file->undo = next;
    }
}

/* Of files that are never synced nothing is remembered: the list would grow for ever. */
static void remember(struct file *file, int fd, off_t at, size_t length) {
    if (!strstr(file->path, ".sqlite") && !strstr(file->path, "/bodies/")) return;
    struct stat now;
    if (fstat(fd, &now)) return;
    struct undo *undo = malloc(sizeof *undo + length);
    ssize_t kept = length ? pread(fd, undo->bytes, length, at) : 0;
    undo->at = at;
    undo->length = kept > 0 ? (size_t)kept : 0;
    undo->size_before = now.st_size;
    undo->next = file->undo;
    file->undo = undo;
}

static void lose(struct file *file, int fd) {
    for (struct undo *undo = file->undo; undo; undo = undo->next) {
        if (undo->length && real_pwrite(fd, undo->bytes, undo->length, undo->at) < 0) abort();
        struct stat now;
        if (!fstat(fd, &now) && now.st_size > undo->size_before && real_ftruncate(fd, undo->size_before)) abort();
    }
    forget(file);
}

static int opened(const char *path, int flags, int mode) {
    if (!is_ours(path)) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    int error = writes ? fault(path, 'o') : 0, fd = -1;
    if (!error) {
        fd = real_open(path, flags, mode);
        error = errno;
        if (fd >= 0 && fd < FDS) open_files[fd] = file_at(path);
    }
    pthread_mutex_unlock(&lock);
    if (fd < 0) errno = error;
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
    if (fd >= 0 && fd < FDS) open_files[fd] = NULL;
    int result = real(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static ssize_t failed(int error) {
    pthread_mutex_unlock(&lock);
    errno = error;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!of(fd)) return real(fd, bytes, length);
    pthread_mutex_lock(&lock);
    struct file *file = of(fd);
    if (file) {
        int error = fault(file->path, 'w');
        if (error) return failed(error);
        int append = fcntl(fd, F_GETFL) & O_APPEND;
        remember(file, fd, lseek(fd, 0, append ? SEEK_END : SEEK_CUR), length);
    }
    ssize_t done = real(fd, bytes, length);
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t placed(int fd, const void *bytes, size_t length, off_t at) {
    if (!of(fd)) return real_pwrite(fd, bytes, length, at);
    pthread_mutex_lock(&lock);
    struct file *file = of(fd);
    if (file) {
        int error = fault(file->path, 'w');
        if (error) return failed(error);
        remember(file, fd, at, length);
    }
    ssize_t done = real_pwrite(fd, bytes, length, at);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return placed(fd, bytes, length, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return placed(fd, bytes, length, at); }

static int cut(int fd, off_t length) {
    if (!of(fd)) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    struct file *file = of(fd);
    int error = file ? fault(file->path, 'w') : 0;
    if (error) return (int)failed(error);
    int result = real_ftruncate(fd, length);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off_t length) { return cut(fd, length); }

static int synced(int (*real)(int), int fd) {
    if (!of(fd)) return real(fd);
    pthread_mutex_lock(&lock);
    struct file *file = of(fd);
    if (file) {
        int loses = control[0] == 'l', error = fault(file->path, 's');
        if (error) {
            if (loses) lose(file, fd);
            return (int)failed(error);
        }
        forget(file);
    }
    int result = real(fd);
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

static int named(const char *path) {
    if (!is_ours(path)) return 0;
    pthread_mutex_lock(&lock);
    int error = fault(path, 'n');
    pthread_mutex_unlock(&lock);
    return error;
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    int error = named(path);
    if (!error) return real(path);
    errno = error;
    return -1;
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    int error = named(to);
    if (!error) return real(from, to);
    errno = error;
    return -1;
}
