/* xpu_program.h - kernels of compiled programs (xpu_program.c), and their objects (xpu_call.c). */
#ifndef GDN_BACKEND_XPU_PROGRAM_H
#define GDN_BACKEND_XPU_PROGRAM_H

#include "xpu.h"

/* A kernel of the driver, and the arguments that it was given last. */
struct xpu_object {
    xpu_object      *next;    /* of a noted pass (xpu_replay.c)              */
    const xpu_named *of;
    cl_kernel        cl;
    uint64_t         n_freed; /* of the device, when they were given         */
    size_t           bytes;   /* of list; 0: not known                       */
    unsigned char    list[];  /* as in xpu_call                              */
};

struct xpu_named {
    xpu_named  *next;
    char       *name;
    cl_program  program;
    xpu_object *shared; /* has room for any arguments */
};

/* The kernel of a file, compiled when needed. */
gdn_status xpu_kernel(xpu_device *d, const char *file, const char *name, xpu_named **out,
                      gdn_err *err);

/* An object of a kernel, with room for so many bytes of arguments and none given. */
cl_int xpu_object_create(xpu_device *d, const xpu_named *of, size_t room, xpu_object **out);
void   xpu_object_free(xpu_object *o);

#endif
