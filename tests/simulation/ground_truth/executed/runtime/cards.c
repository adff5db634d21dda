/* The cards of the stand-in: how many, of which capability and size. They are what the environment says. */

#define _GNU_SOURCE
#include "standin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread int current;
static __thread cudaError_t last_error;
static int has_context[MOST_CARDS];

static long number_from(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

int cards(void) {
    long count = number_from("STANDIN_CARDS", 2);
    return count > MOST_CARDS ? MOST_CARDS : (int)count;
}
int capability_major(void) { return (int)number_from("STANDIN_CAPABILITY", 90) / 10; }
int capability_minor(void) { return (int)number_from("STANDIN_CAPABILITY", 90) % 10; }
size_t card_memory(void) { return (size_t)number_from("STANDIN_MEMORY_MIB", 81920) << 20; }
int card_filling(void) { return (int)number_from("STANDIN_FILLING", 0); }
int current_card(void) { return current; }
void touch(int card) { has_context[card] = 1; }
int touched(int card) { return card >= 0 && card < MOST_CARDS && has_context[card]; }
cudaError_t failed(cudaError_t error) { return last_error = error; }

cudaError_t cudaGetDeviceCount(int *count) {
    *count = cards();
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *card) {
    *card = current;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int card) {
    if (card < 0 || card >= cards()) return failed(cudaErrorInvalidDevice);
    current = card;
    touch(card);
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    touch(current);
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int card, int other) {
    (void)card, (void)other;
    *can = (int)number_from("STANDIN_PEERS", 0);
    return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int card, unsigned flags) {
    (void)card, (void)flags;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int card) {
    snprintf(text, (size_t)size, "0000:%02x:00.0", card + 1);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *seen, int card) {
    const char *name = getenv("STANDIN_NAME");
    if (card < 0 || card >= cards()) return failed(cudaErrorInvalidDevice);
    memset(seen, 0, sizeof *seen);
    snprintf(seen->name, sizeof seen->name, "%s", name ? name : "stand-in card");
    seen->uuid.bytes[0] = (char)(card + 1);
    seen->totalGlobalMem = card_memory();
    seen->major = capability_major();
    seen->minor = capability_minor();
    seen->pciBusID = card + 1;
    /* Limits that every card since Volta has, or those of an H100. */
    seen->warpSize = 32;
    seen->maxThreadsPerBlock = 1024;
    seen->maxThreadsDim[0] = seen->maxThreadsDim[1] = 1024;
    seen->maxThreadsDim[2] = 64;
    seen->maxGridSize[0] = INT32_MAX;
    seen->maxGridSize[1] = seen->maxGridSize[2] = 65535;
    seen->multiProcessorCount = 132;
    seen->maxThreadsPerMultiProcessor = 2048;
    seen->maxBlocksPerMultiProcessor = 32;
    seen->regsPerBlock = seen->regsPerMultiprocessor = 65536;
    seen->sharedMemPerBlock = 49152;
    seen->sharedMemPerBlockOptin = 232448;
    seen->sharedMemPerMultiprocessor = 233472;
    seen->reservedSharedMemPerBlock = 1024;
    seen->totalConstMem = 65536;
    seen->l2CacheSize = 50 << 20;
    seen->memPitch = INT32_MAX;
    seen->textureAlignment = 512;
    seen->memoryBusWidth = 5120;
    seen->asyncEngineCount = 3;
    seen->canMapHostMemory = seen->concurrentKernels = seen->unifiedAddressing = seen->managedMemory = 1;
    seen->streamPrioritiesSupported = seen->cooperativeLaunch = seen->memoryPoolsSupported = 1;
    seen->concurrentManagedAccess = seen->hostRegisterSupported = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int card) {
    struct cudaDeviceProp seen;
    cudaError_t error = cudaGetDeviceProperties(&seen, card);
    if (error) return error;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = seen.maxThreadsPerBlock; break;
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *value = seen.maxThreadsDim[0]; break;
    case cudaDevAttrMaxBlockDimZ: *value = seen.maxThreadsDim[2]; break;
    case cudaDevAttrMaxGridDimX: *value = seen.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = seen.maxGridSize[1]; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)seen.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)seen.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)seen.sharedMemPerMultiprocessor; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = (int)seen.reservedSharedMemPerBlock; break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = seen.regsPerBlock; break;
    case cudaDevAttrWarpSize: *value = seen.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *value = seen.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = seen.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = seen.minor; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = seen.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = seen.maxBlocksPerMultiProcessor; break;
    case cudaDevAttrL2CacheSize: *value = seen.l2CacheSize; break;
    case cudaDevAttrClockRate: *value = 1980000; break;
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrHostRegisterSupported: *value = 1; break;
    default: *value = 0;
    }
    return cudaSuccess;
}

/* Errors are reset when they are asked for. Their names and texts are those of the real runtime behind this one. */

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }

static const char *text_of(cudaError_t error, const char *function) {
    const char *(*real)(cudaError_t) = (const char *(*)(cudaError_t))dlsym(RTLD_NEXT, function);
    return real ? real(error) : "no CUDA runtime behind the stand-in";
}
const char *cudaGetErrorString(cudaError_t error) { return text_of(error, __func__); }
const char *cudaGetErrorName(cudaError_t error) { return text_of(error, __func__); }
