/* lora.c - low-rank adapters as PEFT writes them. */
#include "model.h"
#include "../base/err.h"

gdn_status gdn_adapter_open(gdn_model *m, const char *dir, float scale, gdn_adapter **out,
                            gdn_err *err) {
    (void)m, (void)scale, (void)out;
    return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: adapters", dir);
}

void gdn_adapter_close(gdn_adapter *a) { (void)a; }
