/* lora.h - reading an adapter: what adapter_config.json says, and which matrix a tensor is for.
 *
 * Shared by lora.c, lora_config.c and lora_names.c.  Everything in the files is untrusted. */
#ifndef GDN_MODEL_LORA_H
#define GDN_MODEL_LORA_H

#include "model.h"

/* --- lora_config.c --- */

typedef struct gdn_lora_config gdn_lora_config;

/* Read adapter_config.json.  GDN_E_UNSUPPORTED names an option that would change results and is
 * not computed here. */
gdn_status gdn_lora_config_read(const char *path, gdn_lora_config **out, gdn_err *err);
void       gdn_lora_config_free(gdn_lora_config *c);

/* Rank and scale (lora_alpha / r, or / sqrt(r)) of a module, path as in the file. */
gdn_status gdn_lora_config_module(const gdn_lora_config *c, const char *path, int32_t *rank,
                                  double *scale, gdn_err *err);

/* --- lora_names.c --- */

typedef enum { GDN_LORA_A, GDN_LORA_B, GDN_LORA_OTHER } gdn_lora_part;

/* base_model.model.PATH.lora_A.weight, or .lora_A.NAME.weight: the part it is; path gets PATH,
 * and *at the place of the letter A or B in the name.  path has room for all of the name. */
gdn_lora_part gdn_lora_split(const char *name, char *path, size_t *at);

/* How rows of B are put into the order of the projection. */
typedef enum { GDN_LORA_PLAIN, GDN_LORA_QKVZ, GDN_LORA_BA } gdn_lora_order;

enum { GDN_LORA_ALL = -1 };

/* A matrix [n, k] of the model: of m->site, or of an expert of layer `layer` (n_layer: of the
 * draft head). */
typedef struct {
    int32_t site;                /* -1: an expert's                                      */
    int32_t layer, expert, part; /* expert: or GDN_LORA_ALL, then part, n and k are open;
                                    part: 0 gate, 1 up, 2 down                           */
    int32_t n, k;
    gdn_lora_order order;
} gdn_lora_target;

/* False when no matrix of the model has this name. */
bool gdn_lora_find(const gdn_model *m, const char *path, gdn_lora_target *out);

#endif
