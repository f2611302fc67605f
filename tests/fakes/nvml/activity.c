/* Activity counters (GPM): a sample remembers whose it is; metrics are what the card says. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct { device *gpu; int gpu_instance; } sample;
typedef struct { unsigned version, is_supported; } support;
typedef struct { const char *short_name, *long_name, *unit; } about;
typedef struct { unsigned id; int result; double value; about info; } metric;
typedef struct { unsigned version, count; sample *before, *now; metric metrics[]; } request;

#ifndef OLD_DRIVER
int nvmlGpmQueryDeviceSupport(device *gpu, support *answer) {
    int result = small(gpu, "gpm", &answer->is_supported);
    if (result == NOT_SUPPORTED) {
        answer->is_supported = 0;
        return OK;
    }
    return result;
}

int nvmlGpmSampleAlloc(sample **made) {
    if (state() != OK)
        return state();
    *made = calloc(1, sizeof **made);
    gpm_samples++;
    return OK;
}

int nvmlGpmSampleFree(sample *old) {
    if (state() == UNINITIALIZED)
        misuse("freed a sample of a library that was shut down");
    gpm_samples--;
    free(old);
    return OK;
}

int nvmlGpmSampleGet(device *gpu, sample *into) {
    char ignored[32];
    int result = of_device(gpu, "gpm_sample", ignored, sizeof ignored);
    into->gpu = gpu;
    into->gpu_instance = -1;
    return result == NOT_SUPPORTED ? OK : result;
}

int nvmlGpmMigSampleGet(device *gpu, unsigned gpu_instance, sample *into) {
    into->gpu = gpu;
    into->gpu_instance = (int)gpu_instance;
    return state();
}

int nvmlGpmMetricsGet(request *wanted) {
    unsigned at;
    if (state() != OK)
        return state();
    if (wanted->version != 1)
        return ARGUMENT_VERSION_MISMATCH;
    if (!wanted->before->gpu || wanted->before->gpu != wanted->now->gpu ||
        wanted->before->gpu_instance != wanted->now->gpu_instance)
        return INVALID_ARGUMENT;
    for (at = 0; at < wanted->count; at++) {
        metric *one = &wanted->metrics[at];
        char name[48], text[64];
        if (wanted->now->gpu_instance < 0)
            snprintf(name, sizeof name, "gpm.%u", one->id);
        else
            snprintf(name, sizeof name, "gpm.%u.of.%d", one->id, wanted->now->gpu_instance);
        one->result = of_device(wanted->now->gpu, name, text, sizeof text);
        one->value = one->result == OK ? strtod(text, NULL) : 0;
    }
    return OK;
}
#endif
