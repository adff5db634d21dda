/* Memory of the cards: pages that the program cannot touch, with a shadow that copies go through.
 *
 * As with a card, code of the processor that reads such an address ends in a segmentation fault. Sizes are rounded up
 * to 2 MiB as the driver does, and what is allocated is counted for each card.
 */

#define _GNU_SOURCE
#include "standin.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GRAIN ((size_t)2 << 20)
#define CONTEXT ((size_t)500 << 20) /* what a context takes of a card before anything is allocated */

struct entry {
    struct block block;
    int mapped;
    struct entry *next;
};

static long reads;
/* How often bytes of a card came to the host: what follows may depend on values, which no kernel has computed. */
long standin_reads(void) { return reads; }

static struct entry *entries;
static size_t used[MOST_CARDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void remember(struct block block, int mapped) {
    struct entry *entry = malloc(sizeof *entry);
    entry->block = block;
    entry->mapped = mapped;
    pthread_mutex_lock(&lock);
    entry->next = entries;
    entries = entry;
    if (block.on_card) used[block.card] += block.size;
    pthread_mutex_unlock(&lock);
}

static void forget(void *pointer) {
    pthread_mutex_lock(&lock);
    for (struct entry **at = &entries; *at; at = &(*at)->next) {
        struct entry *entry = *at;
        if (entry->block.address != (char *)pointer) continue;
        *at = entry->next;
        if (entry->block.on_card) used[entry->block.card] -= entry->block.size;
        if (entry->mapped) munmap(entry->block.address, entry->block.size);
        if (entry->mapped && entry->block.shadow != entry->block.address)
            munmap(entry->block.shadow, entry->block.size);
        free(entry);
        break;
    }
    pthread_mutex_unlock(&lock);
}

int block_of(const void *pointer, struct block *found) {
    int known = 0;
    pthread_mutex_lock(&lock);
    for (struct entry *entry = entries; entry && !known; entry = entry->next) {
        const char *begin = entry->block.address;
        if ((const char *)pointer >= begin && (const char *)pointer < begin + entry->block.size) {
            *found = entry->block;
            known = 1;
        }
    }
    pthread_mutex_unlock(&lock);
    return known;
}

static int is_on_card(const void *pointer) {
    struct block block;
    return block_of(pointer, &block) && block.on_card;
}

/* Where the bytes of `pointer` can be read and written. */
static char *shadow(const void *pointer) {
    struct block block;
    if (!block_of(pointer, &block)) return (char *)pointer;
    return block.shadow + ((const char *)pointer - block.address);
}

static cudaError_t on_card(void **pointer, size_t size) {
    int card = current_card(), file;
    size_t whole = (size + GRAIN - 1) / GRAIN * GRAIN;
    char *seen, *hidden;
    touch(card);
    *pointer = NULL;
    if (!size) return cudaSuccess;
    if (used[card] + whole + CONTEXT > card_memory()) return failed(cudaErrorMemoryAllocation);
    file = memfd_create("card", 0);
    if (file < 0 || ftruncate(file, (off_t)whole)) return failed(cudaErrorMemoryAllocation);
    seen = mmap(NULL, whole, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0);
    hidden = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    close(file);
    if (seen == MAP_FAILED || hidden == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
    /* Bytes to begin with, other ones in a second run: what differs then depends on values. */
    if (card_filling()) memset(hidden, card_filling(), whole);
    remember((struct block){seen, hidden, whole, card, 1}, 1);
    *pointer = seen;
    return cudaSuccess;
}

static cudaError_t on_host(void **pointer, size_t size) {
    size_t whole = (size + GRAIN - 1) / GRAIN * GRAIN;
    *pointer = NULL;
    if (!size) return cudaSuccess;
    *pointer = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*pointer == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
    remember((struct block){*pointer, *pointer, whole, current_card(), 0}, 1);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t size) { return on_card(pointer, size); }
cudaError_t cudaMallocAsync(void **pointer, size_t size, cudaStream_t stream) {
    (void)stream;
    return on_card(pointer, size);
}
/* Managed memory can be read from both sides. */
cudaError_t cudaMallocManaged(void **pointer, size_t size, unsigned flags) {
    (void)flags;
    return on_host(pointer, size);
}
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    (void)flags;
    return on_host(pointer, size);
}
cudaError_t cudaMallocHost(void **pointer, size_t size) { return on_host(pointer, size); }
cudaError_t cudaFree(void *pointer) {
    touch(current_card());
    if (pointer) forget(pointer);
    return cudaSuccess;
}
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) {
    (void)stream;
    forget(pointer);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *pointer) {
    forget(pointer);
    return cudaSuccess;
}
cudaError_t cudaHostRegister(void *pointer, size_t size, unsigned flags) {
    (void)flags;
    remember((struct block){pointer, pointer, size, current_card(), 0}, 0);
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *pointer) {
    forget(pointer);
    return cudaSuccess;
}
cudaError_t cudaHostGetDevicePointer(void **seen, void *pointer, unsigned flags) {
    (void)flags;
    *seen = pointer;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
    int card = current_card();
    touch(card);
    *total = card_memory();
    *left = *total - CONTEXT - used[card];
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *seen, const void *pointer) {
    struct block block;
    memset(seen, 0, sizeof *seen);
    if (!block_of(pointer, &block)) {
        seen->type = cudaMemoryTypeUnregistered;
        seen->device = cudaInvalidDeviceId;
        return cudaSuccess;
    }
    seen->type = block.on_card ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    seen->device = block.card;
    seen->devicePointer = (void *)pointer;
    seen->hostPointer = block.on_card ? NULL : (void *)pointer;
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    (void)kind;
    touch(current_card());
    if (!size) return cudaSuccess;
    if (is_on_card(from) && !is_on_card(to)) __sync_fetch_and_add(&reads, 1);
    memmove(shadow(to), shadow(from), size);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)stream;
    return cudaMemcpy(to, from, size, kind);
}
cudaError_t cudaMemcpyPeerAsync(void *to, int there, const void *from, int here, size_t size, cudaStream_t stream) {
    (void)there, (void)here, (void)stream;
    return cudaMemcpy(to, from, size, cudaMemcpyDeviceToDevice);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)stream;
    for (size_t row = 0; row < height; row++)
        cudaMemcpy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width, kind);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *pointer, int value, size_t size) {
    touch(current_card());
    if (size) memset(shadow(pointer), value, size);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *pointer, int value, size_t size, cudaStream_t stream) {
    (void)stream;
    return cudaMemset(pointer, value, size);
}

/* Variables of kernels: nobody reads what is written to them. */
static char variables[1 << 20];
cudaError_t cudaGetSymbolAddress(void **pointer, const void *symbol) {
    (void)symbol;
    *pointer = variables;
    return cudaSuccess;
}
cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t size, size_t at, enum cudaMemcpyKind kind) {
    (void)symbol, (void)from, (void)size, (void)at, (void)kind;
    return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t at, enum cudaMemcpyKind kind) {
    (void)symbol, (void)at, (void)kind;
    memset(shadow(to), 0, size);
    return cudaSuccess;
}
