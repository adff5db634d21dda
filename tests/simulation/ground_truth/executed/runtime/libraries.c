/* The compiler of kernels at run time, and what cuBLAS answers before any kernel: each function's work is left undone. */

#include "standin.h"

#include <stdlib.h>
#include <string.h>

int nvrtcVersion(int *major, int *minor) {
    *major = CUDART_VERSION / 1000;
    *minor = CUDART_VERSION % 1000 / 10;
    return 0;
}
int nvrtcCreateProgram(void **program, const char *text, const char *name, int count, const char *const *headers,
                       const char *const *names) {
    (void)text, (void)name, (void)count, (void)headers, (void)names;
    *program = calloc(1, 64);
    return 0;
}
int nvrtcDestroyProgram(void **program) {
    free(*program);
    *program = NULL;
    return 0;
}
int nvrtcGetLoweredName(void *program, const char *name, const char **lowered) {
    (void)program;
    *lowered = name;
    return 0;
}
static int sixteen(size_t *size) {
    *size = 16;
    return 0;
}
static int zeros(char *data) {
    memset(data, 0, 16);
    return 0;
}
int nvrtcGetPTXSize(void *program, size_t *size) { return (void)program, sixteen(size); }
int nvrtcGetCUBINSize(void *program, size_t *size) { return (void)program, sixteen(size); }
int nvrtcGetPTX(void *program, char *data) { return (void)program, zeros(data); }
int nvrtcGetCUBIN(void *program, char *data) { return (void)program, zeros(data); }
int nvrtcGetProgramLogSize(void *program, size_t *size) {
    (void)program;
    *size = 1;
    return 0;
}
int nvrtcGetProgramLog(void *program, char *text) {
    (void)program;
    *text = 0;
    return 0;
}

/* cuBLAS: its headers need those of the compiler nvcc, so the types are spelled here. A status of 0 is success. */

int cublasCreate_v2(void **handle) {
    count_library_call(__func__);
    *handle = calloc(1, 4096);
    return 0;
}
int cublasGetStream_v2(void *handle, void **stream) {
    (void)handle;
    *stream = NULL;
    return 0;
}
int cublasGetPointerMode_v2(void *handle, int *mode) {
    (void)handle;
    *mode = 0; /* numbers are on the host */
    return 0;
}
int cublasGetMathMode(void *handle, int *mode) {
    (void)handle;
    *mode = 0; /* the default */
    return 0;
}
#define VERSION 130100 /* any of CUDA 13 */
int cublasGetVersion_v2(void *handle, int *version) {
    (void)handle;
    *version = VERSION;
    return 0;
}
int cublasGetProperty(int type, int *value) {
    *value = type == 0 ? VERSION / 10000 : type == 1 ? VERSION / 100 % 100 : VERSION % 100;
    return 0;
}
size_t cublasLtGetVersion(void) { return VERSION; }
int cublasLtCreate(void **handle) {
    *handle = calloc(1, 4096);
    return 0;
}
#define HEURISTIC_SIZE 96 /* an algorithm of 8 numbers of 64 bits, its workspace, its state, waves, four reserved */
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int most, void *results, int *count) {
    (void)handle, (void)operation, (void)a, (void)b, (void)c, (void)d, (void)preference;
    count_library_call(__func__);
    if (most > 0) memset(results, 0, HEURISTIC_SIZE);
    *count = most > 0;
    return 0;
}

/* cuDNN ends the process when it finds no driver that it knows; this way it is refused as where it is not installed. */
#define CUDNN_NOT_INITIALIZED 1001
int cudnnCreate(void **handle) {
    *handle = NULL;
    return CUDNN_NOT_INITIALIZED;
}
