/* devices.c - gdn devices: what this machine can compute on, the default first. */
#include "cli.h"

#include <string.h>

static const opt_about about = { "devices", "", "List the devices, the default one first." };

int cli_devices(int argc, char **argv) {
    enum { MAX = 64 };
    bool json = false;
    const opt table[] = {
        { OPT_TRUE, 0, "json", &json, NULL, "a JSON list", 0, 0, NULL },
        { OPT_HEAD, 0, NULL, NULL, NULL, NULL, 0, 0, NULL },
    };
    const int rc = opt_parse(&about, table, argc, argv, NULL);
    if (rc != OPT_GO) return rc;
    gdn_device_info d[MAX];
    int n = gdn_devices(d, MAX);
    if (n > MAX) n = MAX;
    if (json) putchar('[');
    for (int i = 0; i < n; i++) {
        char mem[32];
        if (json) {
            printf("%s{\"name\": ", i > 0 ? ", " : "");
            cli_json_string(stdout, d[i].name, strlen(d[i].name));
            printf(", \"description\": ");
            cli_json_string(stdout, d[i].description, strlen(d[i].description));
            printf(", \"memory_bytes\": %llu}", (unsigned long long)d[i].memory_bytes);
        } else {
            printf("%-10s %s, %s\n", d[i].name, d[i].description,
                   cli_bytes(d[i].memory_bytes, mem));
        }
    }
    if (json) printf("]\n");
    return cli_end(0);
}
