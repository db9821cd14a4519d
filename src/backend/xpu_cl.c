/* xpu_cl.c - loading libOpenCL and listing its devices. */
#include "xpu_cl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

xpu_cl_table xpu_cl;

static struct {
    pthread_once_t once;
    xpu_cl_device  device[XPU_MAX_DEVICE];
    int            n;
    char           none[320]; /* why there is none; of unfit devices the first says why */
} found = {.once = PTHREAD_ONCE_INIT};

static bool load(void) {
    static const char *const names[] = {
#define X(name) #name,
        XPU_CL_LIST(X)
#undef X
    };
    void *lib = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    if (lib == NULL) {
        snprintf(found.none, sizeof found.none,
                 "OpenCL is not installed (%.120s): install its loader (Debian: ocl-icd-libopencl1) "
                 "and the GPU's driver (intel-opencl-icd)", dlerror());
        return false;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *f = dlsym(lib, names[i]);
        if (f == NULL) {
            snprintf(found.none, sizeof found.none, "libOpenCL.so.1 has no %s: it is older than "
                     "OpenCL 1.2, install a newer one", names[i]);
            return false;
        }
        memcpy((char *)&xpu_cl + i * sizeof f, &f, sizeof f); /* all members are such pointers */
    }
    return true;
}

_Static_assert(sizeof(xpu_cl_table) % sizeof(void *) == 0 &&
               sizeof(xpu_usm_table) % sizeof(void *) == 0 &&
               sizeof(xpu_record_table) % sizeof(void *) == 0, "tables of pointers");

static void text(cl_device_id d, cl_device_info what, char *out, size_t n) {
    size_t got = 0;
    char all[256] = "";
    if (xpu_cl.clGetDeviceInfo(d, what, sizeof all - 1, all, &got) != CL_SUCCESS) all[0] = '\0';
    const char *p = all + strspn(all, " ");
    size_t len = strlen(p);
    while (len > 0 && p[len - 1] == ' ') len--;
    snprintf(out, n, "%.*s", (int)len, p);
}

static uint64_t number(cl_device_id d, cl_device_info what, size_t bytes) {
    uint64_t v = 0; /* little-endian: a smaller value fills the low bytes */
    return xpu_cl.clGetDeviceInfo(d, what, bytes, &v, NULL) == CL_SUCCESS ? v : 0;
}

/* "OpenCL 3.0 ..." -> 300, 0 when it is something else. */
static int version_of(cl_device_id d) {
    char text_[64];
    int major = 0, minor = 0;
    text(d, CL_DEVICE_VERSION, text_, sizeof text_);
    return sscanf(text_, "OpenCL %d.%d", &major, &minor) == 2 ? 100 * major + minor : 0;
}

/* Whether it has what every kernel counts on (xpu.h); the first that has not is remembered. */
static bool can_run(cl_device_id d) {
    char why[120] = "", name[80];
    const int version = version_of(d);
    const uint64_t items = number(d, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof(size_t));
    const uint64_t local = number(d, CL_DEVICE_LOCAL_MEM_SIZE, sizeof(cl_ulong));
    if (version < 102)
        snprintf(why, sizeof why, "has OpenCL %d.%d and 1.2 is needed: update its driver",
                 version / 100, version % 100);
    else if (number(d, CL_DEVICE_AVAILABLE, sizeof(cl_bool)) == 0)
        snprintf(why, sizeof why, "is not available: another program may hold it");
    else if (number(d, CL_DEVICE_COMPILER_AVAILABLE, sizeof(cl_bool)) == 0)
        snprintf(why, sizeof why, "has a driver without a compiler: install the whole driver");
    else if (items < XPU_NEED_GROUP)
        snprintf(why, sizeof why, "takes work-groups of %llu items and %d are needed",
                 (unsigned long long)items, XPU_NEED_GROUP);
    else if (local < XPU_NEED_LOCAL)
        snprintf(why, sizeof why, "has %llu bytes of local memory and %d are needed",
                 (unsigned long long)local, XPU_NEED_LOCAL);
    else if (number(d, CL_DEVICE_ENDIAN_LITTLE, sizeof(cl_bool)) == 0)
        snprintf(why, sizeof why, "is big-endian");
    if (why[0] == '\0') return true;
    text(d, CL_DEVICE_NAME, name, sizeof name);
    if (found.none[0] == '\0') snprintf(found.none, sizeof found.none, "%s %s", name, why);
    return false;
}

bool xpu_cl_has_extension(cl_device_id d, const char *name) {
    size_t n = 0;
    if (xpu_cl.clGetDeviceInfo(d, CL_DEVICE_EXTENSIONS, 0, NULL, &n) != CL_SUCCESS) return false;
    char *all = calloc(n + 1, 1);
    bool has = false;
    if (all != NULL &&
        xpu_cl.clGetDeviceInfo(d, CL_DEVICE_EXTENSIONS, n, all, NULL) == CL_SUCCESS) {
        const size_t len = strlen(name);
        for (const char *p = all; !has && (p = strstr(p, name)) != NULL; p += len)
            has = (p == all || p[-1] == ' ') && (p[len] == ' ' || p[len] == '\0');
    }
    free(all);
    return has;
}

/* A table of n functions, all of them or nothing. */
static void find(cl_platform_id p, const char *const *name, size_t n, void *table) {
    enum { MOST = 8 };
    void *all[MOST];
    for (size_t i = 0; i < n; i++) {
        all[i] = xpu_cl.clGetExtensionFunctionAddressForPlatform(p, name[i]);
        if (all[i] == NULL) return;
    }
    memcpy(table, all, n * sizeof *all);
}

static void find_usm(xpu_cl_device *x) {
    static const char *const names[] = {
#define X(name) #name,
        XPU_USM_LIST(X)
#undef X
    };
    if (xpu_cl_has_extension(x->id, "cl_intel_unified_shared_memory") &&
        (number(x->id, CL_DEVICE_DEVICE_MEM_CAPABILITIES_INTEL, sizeof(cl_bitfield)) &
         CL_UNIFIED_SHARED_MEMORY_ACCESS_INTEL) != 0)
        find(x->platform, names, sizeof names / sizeof *names, &x->usm);
}

/* The version of an extension, 0: the device has none or does not say. */
static cl_version_khr extension_version(cl_device_id d, const char *name) {
    size_t bytes = 0;
    if (xpu_cl.clGetDeviceInfo(d, CL_DEVICE_EXTENSIONS_WITH_VERSION_KHR, 0, NULL, &bytes) !=
        CL_SUCCESS)
        return 0;
    cl_name_version_khr *all = calloc(1, bytes + 1);
    cl_version_khr version = 0;
    if (all != NULL && xpu_cl.clGetDeviceInfo(d, CL_DEVICE_EXTENSIONS_WITH_VERSION_KHR, bytes, all,
                                              NULL) == CL_SUCCESS)
        for (size_t i = 0; i < bytes / sizeof *all; i++)
            if (strcmp(all[i].name, name) == 0) version = all[i].version;
    free(all);
    return version;
}

/* Provisional versions changed what functions take, but not for those of XPU_RECORD_LIST: from 0.9.0 on
 * to 0.9.8, of which 1.0 is another name.  Queues are in order, without properties. */
static void find_record(xpu_cl_device *x) {
    static const char *const names[] = {
#define X(name) #name,
        XPU_RECORD_LIST(X)
#undef X
    };
    const cl_version_khr v = extension_version(x->id, "cl_khr_command_buffer");
    const bool known = (v >= CL_MAKE_VERSION_KHR(0, 9, 0) && v <= CL_MAKE_VERSION_KHR(0, 9, 8)) ||
                       (CL_VERSION_MAJOR_KHR(v) == 1 && CL_VERSION_MINOR_KHR(v) == 0);
    if (known && number(x->id, CL_DEVICE_COMMAND_BUFFER_REQUIRED_QUEUE_PROPERTIES_KHR,
                        sizeof(cl_bitfield)) == 0)
        find(x->platform, names, sizeof names / sizeof *names, &x->record);
}

static void add(cl_platform_id platform, cl_device_id d, bool gpu) {
    enum { INTEL = 0x8086 };
    xpu_cl_device x = {.id = d, .platform = platform};
    char version[64], driver[64];
    x.intel = gpu && number(d, CL_DEVICE_VENDOR_ID, sizeof(cl_uint)) == INTEL;
    text(d, CL_DEVICE_NAME, x.name, sizeof x.name);
    text(d, CL_DEVICE_VERSION, version, sizeof version);
    text(d, CL_DRIVER_VERSION, driver, sizeof driver);
    snprintf(x.driver, sizeof x.driver, "%.*s, driver %.40s", (int)strcspn(version, " ") + 4,
             version, driver);
    x.memory_bytes = number(d, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(cl_ulong));
    x.max_alloc = number(d, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(cl_ulong));
    find_usm(&x);
    find_record(&x);
    int at = found.n;
    if (x.intel)
        for (at = 0; at < found.n && found.device[at].intel;) at++;
    memmove(found.device + at + 1, found.device + at,
            (size_t)(found.n - at) * sizeof *found.device);
    found.device[at] = x;
    found.n++;
}

static void list(void) {
    enum { MAX = 16 };
    cl_platform_id platform[MAX];
    cl_uint n = 0;
    if (!load()) return;
    const cl_int e = xpu_cl.clGetPlatformIDs(MAX, platform, &n);
    if (e != CL_SUCCESS || n == 0) {
        snprintf(found.none, sizeof found.none,
                 "OpenCL has no driver: install the GPU's (Debian: intel-opencl-icd)");
        return;
    }
    for (int gpu = 1; gpu >= 0; gpu--) /* GPUs come before everything else */
        for (cl_uint i = 0; i < n && i < MAX; i++) {
            cl_device_id d[MAX];
            cl_uint m = 0;
            if (xpu_cl.clGetDeviceIDs(platform[i], CL_DEVICE_TYPE_ALL, MAX, d, &m) != CL_SUCCESS)
                continue;
            for (cl_uint k = 0; k < m && k < MAX && found.n < XPU_MAX_DEVICE; k++) {
                const uint64_t type = number(d[k], CL_DEVICE_TYPE, sizeof(cl_device_type));
                if (((type & CL_DEVICE_TYPE_GPU) != 0) != (gpu == 1)) continue;
                if (can_run(d[k])) add(platform[i], d[k], gpu == 1);
            }
        }
    if (found.n == 0 && found.none[0] == '\0')
        snprintf(found.none, sizeof found.none,
                 "OpenCL has no device: there is no GPU, or you may not open /dev/dri/renderD128");
}

int xpu_cl_devices(const xpu_cl_device **out, const char **none) {
    pthread_once(&found.once, list);
    *out = found.device;
    *none = found.none;
    return found.n;
}

const char *xpu_error_name(cl_int code) {
    static const struct {
        cl_int      code;
        const char *name;
    } known[] = {
#define X(name) {name, #name},
        X(CL_DEVICE_NOT_FOUND) X(CL_DEVICE_NOT_AVAILABLE) X(CL_COMPILER_NOT_AVAILABLE)
        X(CL_MEM_OBJECT_ALLOCATION_FAILURE) X(CL_OUT_OF_RESOURCES) X(CL_OUT_OF_HOST_MEMORY)
        X(CL_MEM_COPY_OVERLAP) X(CL_BUILD_PROGRAM_FAILURE) X(CL_INVALID_VALUE)
        X(CL_INVALID_DEVICE) X(CL_INVALID_CONTEXT) X(CL_INVALID_COMMAND_QUEUE)
        X(CL_INVALID_MEM_OBJECT) X(CL_INVALID_BINARY) X(CL_INVALID_BUILD_OPTIONS)
        X(CL_INVALID_PROGRAM) X(CL_INVALID_PROGRAM_EXECUTABLE) X(CL_INVALID_KERNEL_NAME)
        X(CL_INVALID_KERNEL) X(CL_INVALID_ARG_INDEX) X(CL_INVALID_ARG_VALUE)
        X(CL_INVALID_ARG_SIZE) X(CL_INVALID_KERNEL_ARGS) X(CL_INVALID_WORK_DIMENSION)
        X(CL_INVALID_WORK_GROUP_SIZE) X(CL_INVALID_WORK_ITEM_SIZE) X(CL_INVALID_OPERATION)
        X(CL_INVALID_BUFFER_SIZE) X(CL_INVALID_GLOBAL_WORK_SIZE)
        X(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST)
#undef X
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].code == code) return known[i].name;
    static _Thread_local char number_text[32];
    snprintf(number_text, sizeof number_text, "error %d", (int)code);
    return number_text;
}
