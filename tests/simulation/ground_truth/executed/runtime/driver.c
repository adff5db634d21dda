/* The driver's functions by whichever way a library comes by them: linked, handed out by the runtime, or looked up. */

#define _GNU_SOURCE
#include "standin.h"

#include <dlfcn.h>

static int nothing(void) { return 0; }

int cuDevicePrimaryCtxGetState(int card, unsigned *flags, int *active) {
    if (flags) *flags = 0;
    if (active) *active = touched(card);
    return 0;
}
int cuGetErrorString(int error, const char **text) {
    (void)error;
    *text = "an error of the stand-in driver";
    return 0;
}
int cuMemGetAddressRange(void **begin, size_t *size, void *pointer) {
    struct block block;
    if (!block_of(pointer, &block)) return 1;
    if (begin) *begin = block.address;
    if (size) *size = block.size;
    return 0;
}
int cuCtxGetCurrent(void **current) {
    *current = (void *)0x10;
    return 0;
}
int cuDeviceGet(int *card, int number) {
    *card = number;
    return 0;
}
int cuDeviceGetCount(int *count) {
    *count = cards();
    return 0;
}
int cuDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int card) {
    return (int)cudaDeviceGetAttribute(value, (enum cudaDeviceAttr)attribute, card);
}
/* NVIDIA's compiler asks for tables of the driver's own, with which it would keep what it compiles. */
#define NOT_FOUND 500
int cuGetExportTable(const void **table, const void *name) {
    (void)name;
    *table = NULL;
    return NOT_FOUND;
}
int cuFuncGetAttribute(int *value, int attribute, void *function) {
    (void)function;
    *value = attribute == 0 ? 1024 : 0; /* the largest block; nothing is known of registers and shared memory */
    return 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *count, void *function, int threads, size_t shared) {
    (void)function, (void)threads, (void)shared;
    *count = 2;
    return 0;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    void *found = dlsym(RTLD_DEFAULT, name);
    (void)version, (void)flags;
    if (!found) count_unknown(name);
    *function = found ? found : (void *)nothing;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags,
                                    enum cudaDriverEntryPointQueryResult *result) {
    return cudaGetDriverEntryPointByVersion(name, function, CUDART_VERSION, flags, result);
}
