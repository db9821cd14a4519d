/* devices.c - gdn devices: what this machine can compute on, the default first. */
#include "cli.h"

#include <string.h>

#include <gdn/op.h>

static const opt_about about = { "devices", "", "List the devices, the default one first." };

/* Empty: the device passes its start-up check. */
static void check(const char *name, gdn_err *err) {
    gdn_device *d = NULL;
    *err = (gdn_err){ 0 };
    if (gdn_device_open(name, NULL, &d, err) == GDN_OK) gdn_device_check(d, err);
    gdn_device_close(d);
}

int cli_devices(int argc, char **argv) {
    enum { MAX = 64 };
    bool json = false, checked = false, failed = false;
    const opt table[] = {
        { OPT_TRUE, 0, "check", &checked, NULL,
          "compute a little on each and compare with the cpu; status 1 when one is wrong", 0, 0,
          NULL },
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
        gdn_err err = { 0 };
        if (checked) check(d[i].name, &err);
        failed = failed || err.text[0] != '\0';
        if (json) {
            printf("%s{\"name\": ", i > 0 ? ", " : "");
            cli_json_string(stdout, d[i].name, strlen(d[i].name));
            printf(", \"description\": ");
            cli_json_string(stdout, d[i].description, strlen(d[i].description));
            printf(", \"memory_bytes\": %llu", (unsigned long long)d[i].memory_bytes);
            if (checked) {
                printf(", \"passes\": %s, \"failure\": ", err.text[0] != '\0' ? "false" : "true");
                cli_json_string(stdout, err.text, strlen(err.text));
            }
            putchar('}');
        } else {
            printf("%-10s %s, %s\n", d[i].name, d[i].description,
                   cli_bytes(d[i].memory_bytes, mem));
            if (checked)
                printf("%-10s %s\n", "", err.text[0] != '\0' ? err.text
                                                             : "passes its start-up check");
        }
    }
    if (json) printf("]\n");
    return cli_end(failed ? 1 : 0);
}
