/* opencl.h - around the tests of the xpu device: a folder for what drivers keep compiled, and the
 * skip where there is no OpenCL device. */
#ifndef GDN_TESTS_OPENCL_H
#define GDN_TESTS_OPENCL_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <gdn/op.h>

#include "sanitized.h"

enum { OPENCL_SKIP = 77 };

static char opencl_folder[] = "/tmp/gdn-test-xpu-XXXXXX";

static int opencl_removed(const char *path, const struct stat *s, int type, struct FTW *at) {
    (void)s, (void)type, (void)at;
    return remove(path);
}

static void opencl_end(void) { nftw(opencl_folder, opencl_removed, 16, FTW_DEPTH | FTW_PHYS); }

/* For many kernels with little to compute: PoCL compiles without optimising, ten times as fast.  To
 * see them optimised: POCL_EXTRA_BUILD_FLAGS= make unit. */
static inline void opencl_quickly(void) { setenv("POCL_EXTRA_BUILD_FLAGS", "-cl-opt-disable", 0); }

/* 0, or what the program ends with. */
static int opencl_begin(void) {
    gdn_err err;
    gdn_device *d;
    if (mkdtemp(opencl_folder) == NULL) return 1;
    /* We keep nothing: to give a binary away PoCL compiles every kernel once more.  What it compiled
     * may be shared: minutes for the tests of a run. */
    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    const char *shared = getenv("GDN_TEST_OPENCL_CACHE");
    setenv("POCL_CACHE_DIR", shared != NULL ? shared : opencl_folder, 1);
    /* Intel's driver opens libraries in a way that the address sanitizer ends the program for. */
    static const char pocl[] = "/etc/OpenCL/vendors/pocl.icd";
    if (SANITIZED && access(pocl, R_OK) == 0) setenv("OCL_ICD_VENDORS", pocl, 0);
    if (gdn_device_open("xpu", NULL, &d, &err) != GDN_OK) {
        opencl_end();
        printf("%s\n", err.text);
        return OPENCL_SKIP;
    }
    gdn_device_close(d);
    return 0;
}

/* What drivers hold until the end, in C++, is theirs. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libstdc++.so\nleak:libLLVM\nleak:libpocl\nleak:libclang\nleak:libOpenCL\n";
}

#endif
