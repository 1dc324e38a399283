/* A GPU that fails as it is told: NVIDIA's driver as far as the program calls it, in the host's memory.

   It is found as libcuda.so.1 through LD_LIBRARY_PATH, so the shipped program loads it as it loads NVIDIA's. Kernels
   compute nothing; what is copied and set is. So a run on it trains nothing, but it goes the way of a run on a GPU: the
   arena is reserved, modules are loaded, every launch and copy is looked at. A copy, a set or a free outside of what was
   allocated, a launch of more than a GPU takes, and a call after the context is gone end the program with words.

   GPU_FREE        bytes that are free at the start; others hold the rest
   GPU_TAKEN       bytes that others take between being asked what is free and the first allocation
   GPU_LOST_AT     from this call of launch, copy, set or wait on, each gives GPU_LOST_WITH, CUDA's number
   GPU_DRIVER      what the driver's version is, 12020 as a rule
   GPU_CAPABILITY  compute capability, 86 as a rule
   GPU_INIT        what cuInit answers
   GPU_NO_PINS     no page of the host can be pinned
   GPU_COUNT       the file that gets the number of those calls, and the most bytes that were allocated

   blas.c is its library of products. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 1, NO_MEMORY = 2 };
#define TOTAL (24ull << 30)
#define BLOCKS 64

static struct { uint64_t at, bytes; } blocks[BLOCKS];
static _Atomic uint64_t allocated, most, calls;
/* Milliseconds that the GPU has worked. */
static double now;

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, 0, 10) : otherwise;
}

static void wrong(const char *what, uint64_t one, uint64_t other) {
    fprintf(stderr, "the program used the GPU wrongly: %s (%llu, %llu)\n", what, (unsigned long long)one,
            (unsigned long long)other);
    abort();
}

__attribute__((destructor)) static void count(void) {
    const char *path = getenv("GPU_COUNT");
    FILE *file = path ? fopen(path, "w") : 0;
    if (!file) return;
    fprintf(file, "%llu %llu", (unsigned long long)calls, (unsigned long long)most);
    fclose(file);
}

static void within(const char *what, uint64_t at, uint64_t bytes) {
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i].bytes && at >= blocks[i].at && bytes <= blocks[i].bytes &&
            at - blocks[i].at <= blocks[i].bytes - bytes)
            return;
    wrong(what, at, bytes);
}

/* Whether the GPU still answers. */
static int asked(void) {
    uint64_t call = atomic_fetch_add(&calls, 1) + 1, lost = setting("GPU_LOST_AT", 0);
    return lost && call >= lost ? (int)setting("GPU_LOST_WITH", 719) : SUCCESS;
}

int cuInit(unsigned flags) { (void)flags; return (int)setting("GPU_INIT", SUCCESS); }
int cuDriverGetVersion(int *version) { *version = (int)setting("GPU_DRIVER", 12020); return SUCCESS; }
int cuDeviceGetCount(int *number) { *number = 1; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return SUCCESS; }
int cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    snprintf(name, length, "a GPU that computes nothing");
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = TOTAL; return SUCCESS; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    (void)device;
    int capability = (int)setting("GPU_CAPABILITY", 86);
    switch (which) {
    case 16: *value = 82; return SUCCESS; /* multiprocessors */
    case 75: *value = capability / 10; return SUCCESS;
    case 76: *value = capability % 10; return SUCCESS;
    default: return INVALID;
    }
}
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = (void *)1; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return SUCCESS; }
int cuCtxSetCurrent(void *context) { return context ? SUCCESS : INVALID; }
int cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = (void *)2; return SUCCESS; }
int cuStreamDestroy_v2(void *stream) { (void)stream; return SUCCESS; }
int cuStreamSynchronize(void *stream) { (void)stream; return asked(); }

int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    (void)stream, (void)flags;
    return event ? SUCCESS : INVALID;
}
int cuEventCreate(void **event, unsigned flags) {
    (void)flags;
    *event = calloc(1, sizeof(double));
    return SUCCESS;
}
int cuEventDestroy_v2(void *event) { free(event); return SUCCESS; }
int cuEventRecord(void *event, void *stream) {
    if (!event || !stream) return INVALID;
    *(double *)event = now;
    return SUCCESS;
}
int cuEventSynchronize(void *event) { return event ? asked() : INVALID; }
int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    *milliseconds = (float)(*(double *)end - *(double *)start);
    return SUCCESS;
}
int cuMemHostRegister_v2(void *at, size_t bytes, unsigned flags) {
    (void)flags;
    return at && bytes && !setting("GPU_NO_PINS", 0) ? SUCCESS : NO_MEMORY;
}
int cuMemHostUnregister(void *at) { return at ? SUCCESS : INVALID; }

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    *total = TOTAL;
    *free = setting("GPU_FREE", TOTAL) - allocated;
    return SUCCESS;
}
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    uint64_t free = setting("GPU_FREE", TOTAL), taken = setting("GPU_TAKEN", 0);
    if (!bytes) return INVALID;
    if (taken + allocated + bytes > free) return NO_MEMORY;
    void *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return NO_MEMORY;
    for (int i = 0; i < BLOCKS; i++) {
        if (blocks[i].bytes) continue;
        blocks[i].at = *address = (uint64_t)at, blocks[i].bytes = bytes;
        allocated += bytes;
        if (allocated > most) most = allocated;
        return SUCCESS;
    }
    wrong("so many allocations", BLOCKS, 0);
    return NO_MEMORY;
}
int cuMemFree_v2(uint64_t address) {
    for (int i = 0; i < BLOCKS; i++) {
        if (!blocks[i].bytes || blocks[i].at != address) continue;
        munmap((void *)address, blocks[i].bytes);
        allocated -= blocks[i].bytes;
        blocks[i].bytes = 0;
        return SUCCESS;
    }
    wrong("a free of what was not allocated", address, 0);
    return INVALID;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    (void)stream;
    int lost = asked();
    if (lost) return lost;
    within("a copy up", to, bytes);
    memcpy((void *)to, from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    (void)stream;
    int lost = asked();
    if (lost) return lost;
    within("a copy down", from, bytes);
    memcpy(to, (void *)from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    (void)stream;
    int lost = asked();
    if (lost) return lost;
    within("a copy within, from", from, bytes);
    within("a copy within, to", to, bytes);
    if (to < from + bytes && from < to + bytes) wrong("a copy onto itself", to, from);
    memcpy((void *)to, (void *)from, bytes);
    return SUCCESS;
}
int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void *stream) {
    (void)stream;
    int lost = asked();
    if (lost) return lost;
    within("a set", at, bytes);
    memset((void *)at, value, bytes);
    return SUCCESS;
}

/* A module is its text: a kernel it does not name is not found. */
int cuModuleLoadData(void **module, const void *image) { *module = strdup(image); return SUCCESS; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    char entry[256];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    if (!strstr(module, entry)) wrong(name, 0, 0);
    *function = strdup(name);
    return SUCCESS;
}
int cuFuncSetAttribute(void *function, int which, int value) {
    if (which == 8 && value > 101376) wrong(function, (uint64_t)value, 101376);
    return SUCCESS;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    (void)stream, (void)arguments, (void)extra;
    if (!x || x > 0x7fffffff || !y || y > 65535 || !z || z > 65535) wrong(function, x, y);
    if (bx * by * bz == 0 || bx * by * bz > 1024 || shared > 101376) wrong(function, bx, shared);
    return asked();
}

#include "blas.c"
