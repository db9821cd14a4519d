/* store.c - sessions on disk. */
#include "../base/err.h"
#include "engine.h"

gdn_status gdn_session_save(gdn_engine *e, const gdn_adapter *a, const int32_t *tokens, int32_t n,
                            const void *note, size_t n_note, const char *path, gdn_err *err) {
    (void)e, (void)a, (void)tokens, (void)n, (void)note, (void)n_note;
    return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: sessions", path);
}

gdn_status gdn_session_load(gdn_engine *e, const gdn_adapter *a, const char *path, void **note,
                            size_t *n_note, gdn_err *err) {
    (void)e, (void)a, (void)note, (void)n_note;
    return gdn_fail(err, GDN_E_UNSUPPORTED, "%s: sessions", path);
}
