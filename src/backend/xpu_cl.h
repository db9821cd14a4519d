/* xpu_cl.h - libOpenCL, loaded when it is first needed, and the devices it knows.
 *
 * The library is not linked: the program runs where there is none.  It stays loaded, as drivers do
 * not survive being unloaded. */
#ifndef GDN_BACKEND_XPU_CL_H
#define GDN_BACKEND_XPU_CL_H

#define CL_TARGET_OPENCL_VERSION 120
#define CL_ENABLE_BETA_EXTENSIONS /* some headers hide cl_khr_command_buffer without it */
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <stdbool.h>

#include "../base/err.h"

/* X(function): all that is used. */
#define XPU_CL_LIST(X)          \
    X(clGetPlatformIDs)         \
    X(clGetPlatformInfo)        \
    X(clGetDeviceIDs)           \
    X(clGetDeviceInfo)          \
    X(clCreateContext)          \
    X(clReleaseContext)         \
    X(clCreateCommandQueue)     \
    X(clReleaseCommandQueue)    \
    X(clCreateBuffer)           \
    X(clReleaseMemObject)       \
    X(clCreateProgramWithSource)\
    X(clCreateProgramWithBinary)\
    X(clBuildProgram)           \
    X(clGetProgramBuildInfo)    \
    X(clGetProgramInfo)         \
    X(clReleaseProgram)         \
    X(clCreateKernel)           \
    X(clReleaseKernel)          \
    X(clSetKernelArg)           \
    X(clEnqueueNDRangeKernel)   \
    X(clEnqueueReadBuffer)      \
    X(clEnqueueWriteBuffer)     \
    X(clEnqueueCopyBuffer)      \
    X(clEnqueueFillBuffer)      \
    X(clGetEventInfo)           \
    X(clGetEventProfilingInfo)  \
    X(clReleaseEvent)           \
    X(clFinish)                 \
    X(clGetExtensionFunctionAddressForPlatform)

typedef struct {
#define X(name) __typeof__(name) *name;
    XPU_CL_LIST(X)
#undef X
} xpu_cl_table;

extern xpu_cl_table xpu_cl; /* valid once xpu_cl_devices() has found a device */

/* Of cl_intel_unified_shared_memory; a platform has its own. */
#define XPU_USM_LIST(X)              \
    X(clDeviceMemAllocINTEL)         \
    X(clMemBlockingFreeINTEL)        \
    X(clSetKernelArgMemPointerINTEL) \
    X(clEnqueueMemcpyINTEL)          \
    X(clEnqueueMemFillINTEL)

typedef struct {
#define X(name) name##_fn name;
    XPU_USM_LIST(X)
#undef X
} xpu_usm_table;

/* Of cl_khr_command_buffer. */
#define XPU_RECORD_LIST(X)        \
    X(clCreateCommandBufferKHR)   \
    X(clReleaseCommandBufferKHR)  \
    X(clFinalizeCommandBufferKHR) \
    X(clCommandNDRangeKernelKHR)  \
    X(clEnqueueCommandBufferKHR)

typedef struct {
#define X(name) name##_fn name;
    XPU_RECORD_LIST(X)
#undef X
} xpu_record_table;

enum {
    XPU_MAX_DEVICE = 16,
    XPU_NEED_GROUP = 256, /* items of a work-group, and bytes of its local memory */
    XPU_NEED_LOCAL = 32 * 1024,
};

typedef struct {
    cl_device_id id;
    cl_platform_id platform;
    xpu_usm_table usm;        /* both all NULL where there is none          */
    xpu_record_table record;
    bool     intel;           /* an Intel GPU; everything else is a stand-in */
    char     name[80];
    char     driver[80];      /* version of the device's language and driver */
    uint64_t memory_bytes, max_alloc;
} xpu_cl_device;

/* The devices that can run the kernels, Intel's GPUs first; found once a process.  none: why there
 * are none, and what to do. */
int xpu_cl_devices(const xpu_cl_device **out, const char **none);

bool xpu_cl_has_extension(cl_device_id d, const char *name);

/* "CL_OUT_OF_RESOURCES", or the number of a code without a name. */
const char *xpu_error_name(cl_int code);

#endif
