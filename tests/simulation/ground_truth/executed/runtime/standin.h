/* What the parts of the stand-in runtime share. */

#ifndef STANDIN_H
#define STANDIN_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#define MOST_CARDS 16

/* cards.c: how many cards there are and what they are like, from the environment. */
int cards(void);
int capability_major(void);
int capability_minor(void);
size_t card_memory(void);
int card_filling(void);
int current_card(void);
void touch(int card);
int touched(int card);
cudaError_t failed(cudaError_t error);

/* memory.c */
struct block {
    char *address; /* what the program sees */
    char *shadow;  /* where the bytes can be read and written; equal to the address for memory of the host */
    size_t size;
    int card;
    int on_card;
};
int block_of(const void *pointer, struct block *found);

/* kernels.c: what a program may ask afterwards. */
void count_launch(void);
void count_library_call(const char *name);
void count_unknown(const char *name);

#endif
