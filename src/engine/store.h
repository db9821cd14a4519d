/* store.h - the file of a saved session: its layout, and reading and writing it piece by piece.
 *
 *     file:   head[256] | plain | chunks
 *     plain:  tokens i32[n_token] | lengths i32[n_snapshot], descending | the caller's note
 *     body:   keys and values of the longest snapshot: [layer][K, V][hkv][n_tok][head_dim], the
 *             MTP layer last and with n_tok - 1 entries; then for each snapshot its hidden row
 *             [d] and the state of every GDN layer [conv | ssm]
 *     chunk:  u32 raw | u32 stored | u64 hash | the next `raw` bytes of the body, compressed with
 *             zstd unless that made them no shorter
 *
 * All numbers are little endian.  Layers stand in the model's order, so that neither the size of a
 * page nor of a block shows.  Each byte is under a hash (XXH3): the head's own, the one of `plain`
 * in the head, a chunk's, which also counts its place.  Nothing is allocated by a number that was
 * not compared with the length of the file. */
#ifndef GDN_ENGINE_STORE_H
#define GDN_ENGINE_STORE_H

#include "engine.h"

enum {
    GDN_STORE_VERSION = 1,
    GDN_STORE_HEAD = 256,
    GDN_STORE_CHUNK = 1 << 20, /* of the body; only the last chunk has less */
    GDN_STORE_CHUNK_HEAD = 16,
    GDN_STORE_WORDS = 48,
    GDN_STORE_MTP = 1,         /* flag: the MTP layer's entries are there   */
};

/* What the head says; magic, version and its own hash are the writer's and reader's. */
typedef struct {
    uint64_t file_bytes, n_token, n_snapshot, n_note, body_bytes;
    uint64_t plain_hash;
    uint64_t model, adapter;           /* fingerprint and key                            */
    uint32_t flags;
    char     kernels[GDN_STORE_WORDS]; /* "cpu avx512": another sum, another last bit    */
    char     types[GDN_STORE_WORDS];   /* "keys bf16, convolution f32, products bf16"    */
} gdn_store_head;

void gdn_store_pack(const gdn_store_head *h, unsigned char out[GDN_STORE_HEAD]);
uint64_t gdn_store_plain_hash(const void *plain, uint64_t n);
/* The hash of a chunk, the index-th of a file. */
uint64_t gdn_store_chunk_hash(uint64_t plain_hash, uint64_t index, uint32_t raw, uint32_t stored,
                              const void *data);

/* --- writing: into PATH.tmp, which then replaces PATH --- */

typedef struct gdn_store_writer gdn_store_writer;

gdn_status gdn_store_create(const char *path, const void *plain, uint64_t n_plain,
                            gdn_store_writer **out, gdn_err *err);
/* The next bytes of the body, from a device. */
gdn_status gdn_store_put(gdn_store_writer *w, gdn_queue *q, gdn_buffer *from, uint64_t at,
                         uint64_t bytes, gdn_err *err);
/* The new file takes the old one's place at once; h->file_bytes and plain_hash are filled in. */
gdn_status gdn_store_finish(gdn_store_writer *w, gdn_store_head *h, gdn_err *err);
/* Without finish before, nothing is left of it. */
void       gdn_store_free(gdn_store_writer *w);

/* --- reading --- */

typedef struct gdn_store_reader gdn_store_reader;

/* Opens the file and checks its head. */
gdn_status gdn_store_open(const char *path, gdn_store_reader **out, gdn_err *err);
void       gdn_store_close(gdn_store_reader *r);
const gdn_store_head *gdn_store_get_head(const gdn_store_reader *r);
/* malloc'ed, checked against its hash; its parts' lengths are those of the head. */
gdn_status gdn_store_plain(gdn_store_reader *r, unsigned char **out, gdn_err *err);
/* Read all chunks to see whether they are good, and go back to the first. */
gdn_status gdn_store_verify(gdn_store_reader *r, gdn_err *err);
/* The next bytes of the body, to a device; to NULL: pass over them. */
gdn_status gdn_store_get(gdn_store_reader *r, gdn_queue *q, gdn_buffer *to, uint64_t at,
                         uint64_t bytes, gdn_err *err);

/* --- fingerprint.c --- */

/* Of what decides the model's results: config, tensors, and samples of their bytes.  Never 0. */
uint64_t gdn_model_fingerprint(const gdn_model *m);

#endif
