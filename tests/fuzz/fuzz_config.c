/* fuzz_config.c - any bytes as config.json and generation_config.json: refused, or every
 * number within what the rest of the program relies on. */
#include <stdint.h>
#include <stdlib.h>

#include "../../src/format/config.h"
#include "../../src/format/genconfig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void expect(int good) {
    if (!good) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    gdn_config c;
    gdn_genconfig g;
    gdn_err err;
    if (gdn_config_parse((const char *)data, n, "fuzz", &c, &err) == GDN_OK) {
        expect(c.d > 0 && c.vocab > 0 && c.n_layer > 0 && c.n_layer <= GDN_MAX_LAYER);
        expect(c.hq > 0 && c.hkv > 0 && c.hq % c.hkv == 0 && c.head_dim >= 2);
        expect(c.hk > 0 && c.hv > 0 && c.hv % c.hk == 0 && c.dk > 0 && c.dv > 0);
        expect(c.rot >= 2 && c.rot % 2 == 0 && c.rot <= c.head_dim && c.rope_theta >= 1);
        expect(c.conv_width >= 2 && c.conv_width <= 8 && c.eps > 0);
        expect(c.n_full + c.n_linear == c.n_layer);
        expect(c.n_eos >= 0 && c.n_eos <= GDN_MAX_EOS);
        for (int32_t i = 0; i < c.n_eos; i++) expect(c.eos[i] >= 0 && c.eos[i] < c.vocab);
        for (int32_t i = 0; i < c.n_layer; i++)
            expect(c.layer_moe[i] ? c.n_expert >= c.top_k && c.top_k > 0 && c.moe_ffn > 0
                                  : c.ffn > 0);
        expect(!c.has_vision || (c.mrope && c.vision.n_head > 0 && c.vision.d > 0));
        expect(c.quant == GDN_QUANT_NONE || (c.quant_rows > 0 && c.quant_cols > 0));
    }
    if (gdn_genconfig_parse((const char *)data, n, "fuzz", &g, &err) == GDN_OK) {
        expect(g.n_eos >= 0 && g.n_eos <= GDN_MAX_EOS && g.top_k >= 0);
        expect(g.top_p >= 0 && g.top_p <= 1 && g.temperature >= 0 && g.repetition > 0);
    }
    return 0;
}
