/* Kernels are counted and do nothing; streams and events are names for nothing; so all is done at once. */

#include "standin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long launches, library_calls;

static void say(const char *what, const char *name) {
    if (getenv("STANDIN_LOG")) fprintf(stderr, "stand-in: %s %s\n", what, name);
}
void count_launch(void) { __sync_fetch_and_add(&launches, 1); }
void count_library_call(const char *name) {
    __sync_fetch_and_add(&library_calls, 1);
    say("library", name);
}
void count_unknown(const char *name) { say("not modelled:", name); }
long standin_launches(void) { return launches; }
long standin_library_calls(void) { return library_calls; }

/* How a `<<<...>>>` reaches the launch. */
struct configuration {
    dim3 grid, block;
    size_t shared;
    void *stream;
};
static __thread struct configuration pushed[16];
static __thread int depth;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream) {
    if (depth < 16) pushed[depth] = (struct configuration){grid, block, shared, stream};
    depth++;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    if (depth > 0 && --depth < 16) {
        *grid = pushed[depth].grid;
        *block = pushed[depth].block;
        *shared = pushed[depth].shared;
        *(void **)stream = pushed[depth].stream;
    }
    return cudaSuccess;
}

static cudaError_t launched(dim3 grid, dim3 block) {
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || !threads || threads > 1024) return failed(cudaErrorInvalidConfiguration);
    touch(current_card());
    count_launch();
    return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **given, size_t shared, cudaStream_t on) {
    (void)kernel, (void)given, (void)shared, (void)on;
    return launched(grid, block);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **given, size_t shared,
                               cudaStream_t on) {
    (void)kernel, (void)given, (void)shared, (void)on;
    return launched(grid, block);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *kernel, void **given) {
    (void)kernel, (void)given;
    return launched(how->gridDim, how->blockDim);
}
cudaError_t cudaLaunchCooperativeKernel(const void *kernel, dim3 grid, dim3 block, void **given, size_t shared,
                                        cudaStream_t on) {
    return cudaLaunchKernel(kernel, grid, block, given, shared, on);
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *seen, const void *function) {
    (void)function;
    memset(seen, 0, sizeof *seen);
    seen->maxThreadsPerBlock = 1024;
    seen->numRegs = 32;
    seen->ptxVersion = seen->binaryVersion = capability_major() * 10 + capability_minor();
    seen->maxDynamicSharedSizeBytes = 232448;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *function, int threads,
                                                                   size_t shared, unsigned flags) {
    (void)function, (void)shared, (void)flags;
    *count = threads > 0 && threads < 2048 ? 2048 / threads : 1;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, const void *function, int threads,
                                                          size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(count, function, threads, shared, 0);
}

/* Code of kernels, which libraries register when they are loaded. */
void **__cudaRegisterFatBinary(void *code) {
    static void *handle[4];
    (void)code;
    return handle;
}
void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int threads, void *thread,
                            void *block, void *block_size, void *grid_size, int *warp_size) {
    (void)handle, (void)host, (void)device, (void)name, (void)threads;
    (void)thread, (void)block, (void)block_size, (void)grid_size, (void)warp_size;
}
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int is_extern, size_t size,
                       int constant, int global) {
    (void)handle, (void)host, (void)device, (void)name, (void)is_extern, (void)size, (void)constant, (void)global;
}
char __cudaInitModule(void **handle) {
    (void)handle;
    return 1;
}

/* Streams and events. */
static void *name(void) {
    static uintptr_t next = 0x1000;
    return (void *)__sync_fetch_and_add(&next, 16);
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    *stream = name();
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    (void)flags;
    return cudaStreamCreate(stream);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    (void)flags, (void)priority;
    return cudaStreamCreate(stream);
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
    (void)stream;
    *priority = 0;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    (void)stream;
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph, const cudaGraphNode_t **nodes,
                                     const cudaGraphEdgeData **edges, size_t *count) {
    (void)stream;
    if (status) *status = cudaStreamCaptureStatusNone;
    if (id) *id = 0;
    if (graph) *graph = NULL;
    if (nodes) *nodes = NULL;
    if (edges) *edges = NULL;
    if (count) *count = 0;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
    (void)mode;
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *given) {
    (void)stream;
    function(given);
    return cudaSuccess;
}
cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void *given, unsigned flags) {
    (void)flags;
    function(stream, cudaSuccess, given);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = name();
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    (void)flags;
    return cudaEventCreate(event);
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    (void)from, (void)to;
    *milliseconds = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int card) {
    (void)card;
    *pool = name();
    return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value) {
    (void)pool, (void)attribute;
    *(uint64_t *)value = 0;
    return cudaSuccess;
}
