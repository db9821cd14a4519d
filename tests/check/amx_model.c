/* amx_model.c - the kernels for AMX tiles over the model of them, so that every machine checks the
 * loops around the instructions. */
#define GDN_AMX_MODEL
#include "../../src/kern/vec/amx.h"

#include "../../src/kern/linear/linear_amx_body.h"

#include "check.h"

static void linear(const gdn_linear_args *a) {
    if (a->x_bf16) linear_amx_body(a);
    else gdn_linear_ref(a);
}

void check_amx_model(gdn_kern *k) {
    gdn_kern_select(k, GDN_ISA_REF);
    k->linear = linear;
    k->isa = GDN_ISA_AMX | GDN_ISA_AVX512BF16; /* what says that linear takes bf16 rows */
}
