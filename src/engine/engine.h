/* engine.h - the engine's structs, for the files of this folder and for tests. */
#ifndef GDN_ENGINE_ENGINE_H
#define GDN_ENGINE_ENGINE_H

#include <gdn/gdn.h>

#include "../model/model.h"
#include "blocks.h"
#include "pages.h"

struct gdn_seq {
    gdn_engine *e;
    int32_t  index;     /* in engine->seq                                          */
    int32_t  length;    /* tokens evaluated                                        */
    int32_t *page;      /* [max_block] of the attention group                      */
    int32_t  n_page;
    int32_t *slot;      /* [n_group] state pages                                   */
    int32_t  adapter;   /* index of its adapter, -1 none                           */
    int32_t  kept;      /* which of its two places holds the last hidden row       */
    bool     broken;    /* a device failed in the middle                           */
};

/* One sequence's part of a step: tokens from .. from + n - 1 of its work. */
typedef struct {
    const gdn_work *work;
    int32_t from, n, row; /* row: of the step                    */
    int32_t out, mtp_out; /* next of the work's out and mtp rows */
    int32_t index;        /* of its work                         */
} gdn_part;

enum { GDN_MAX_LOGIT = 64 };

/* What the host writes for a step, at fixed places of one buffer. */
typedef struct {
    gdn_tensor ids, pos, seq_start, n_past, page, has_state, adapter;
    gdn_tensor slot[GDN_MAX_GROUP]; /* of each group of GDN layers               */
    gdn_tensor out;                 /* rows that go through the head             */
    gdn_tensor hidden;              /* MTP: the hidden row of each pair          */
    gdn_tensor keep;                /* MTP: each sequence's last row             */
} gdn_step_input;

struct gdn_engine {
    gdn_model *m;
    gdn_queue *q;
    gdn_engine_opts opts;
    gdn_block_plan plan;
    gdn_pages pages;
    gdn_buffer **storage;
    gdn_buffer *workspace, *input;
    gdn_workspace ws;
    gdn_step_input in;
    int32_t *stage;     /* the host's copy of `input` */
    gdn_part *part;     /* [2 n_seq] */
    gdn_seq **seq;      /* [n_seq], NULL where free */
    int32_t  max_block, n_logit;
    uint64_t steps, rows, regions; /* regions: of the device when the engine was created */
    gdn_tap_fn *tap;    /* tests */
    void *tap_arg;
};

#endif
