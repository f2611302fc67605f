/* A stand-in for NVIDIA's libnvidia-ml.so.1: answers from a text file named by FAKE_NVML.
 *
 * The file has one `key value` on a line and is read anew at each call. A key that is missing
 * is NOT_SUPPORTED; a value `!15` is that error's number (nvmlReturn_t). Keys:
 *
 *     driver          the running driver's version; init fails with 18 (LIB_RM_VERSION_MISMATCH)
 *                     where LIBRARY_VERSION, compiled in, is another
 *     init, count
 *     load            changes when the kernel module was loaded anew: what was initialised
 *                     before it fails with 999 (UNKNOWN) until init is called again
 *     gpu.N.handle    only of use as an error
 *     gpu.N.<name>    see the functions below
 *     gpu.N.compute   pid:bytes pid:bytes …; bytes `?`: not told; also graphics and mps
 *
 * Structures and signatures follow nvml.h as nvidia-ml-py declares them:
 *     gcc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -DLIBRARY_VERSION='"550.54"' …
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, VERSION_MISMATCH = 18, UNKNOWN = 999 };

#ifndef LIBRARY_VERSION
#define LIBRARY_VERSION "550.54"
#endif

typedef unsigned long long u64;
typedef struct { int index; } device;
typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; u64 bytes; unsigned gpu_instance, compute_instance; } process;
typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci;

static int is_open;
static char load_at_init[32];
static device devices[64];

/* Copies the value of `key`; returns NVML's return code. */
static int look_up(const char *key, char *value, size_t size) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[4096];
    int result = NOT_SUPPORTED;
    size_t length = strlen(key);
    if (!file)
        return DRIVER_NOT_LOADED;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, key, length) == 0 && line[length] == ' ') {
            snprintf(value, size, "%s", line + length + 1);
            result = value[0] == '!' ? atoi(value + 1) : OK;
            break;
        }
    }
    fclose(file);
    return result;
}

/* Whether the library is of use: initialised, and since the module was last loaded. */
static int state(void) {
    char load[32] = "";
    if (!is_open)
        return UNINITIALIZED;
    look_up("load", load, sizeof load);
    return strcmp(load, load_at_init) == 0 ? OK : UNKNOWN;
}

static int of_device(device *gpu, const char *name, char *value, size_t size) {
    char key[64];
    if (state() != OK)
        return state();
    snprintf(key, sizeof key, "gpu.%d.%s", gpu->index, name);
    return look_up(key, value, size);
}

static int number(device *gpu, const char *name, u64 *value) {
    char text[64];
    int result = of_device(gpu, name, text, sizeof text);
    if (result == OK)
        *value = strtoull(text, NULL, 0);
    return result;
}

static int small(device *gpu, const char *name, unsigned *value) {
    u64 wide;
    int result = number(gpu, name, &wide);
    if (result == OK)
        *value = (unsigned)wide;
    return result;
}

int nvmlInitWithFlags(unsigned flags) {
    char version[64], ignored[64];
    int result = look_up("driver", version, sizeof version);
    (void)flags;
    if (result != OK)
        return result == NOT_SUPPORTED ? DRIVER_NOT_LOADED : result;
    if (strcmp(version, LIBRARY_VERSION) != 0)
        return VERSION_MISMATCH;
    result = look_up("init", ignored, sizeof ignored);
    if (result != OK && result != NOT_SUPPORTED)
        return result;
    load_at_init[0] = 0;
    look_up("load", load_at_init, sizeof load_at_init);
    is_open = 1;
    return OK;
}

int nvmlShutdown(void) {
    int was_open = is_open;
    is_open = 0;
    return was_open ? OK : UNINITIALIZED;
}

const char *nvmlErrorString(int result) {
    static char text[32];
    snprintf(text, sizeof text, "fake error %d", result);
    return text;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    return is_open ? look_up("driver", version, length) : UNINITIALIZED;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char text[32];
    int result = state() == OK ? look_up("count", text, sizeof text) : state();
    if (result == OK)
        *count = (unsigned)atoi(text);
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **gpu) {
    char ignored[64];
    int result;
    devices[index].index = (int)index;
    *gpu = &devices[index];
    result = of_device(*gpu, "handle", ignored, sizeof ignored);
    return result == NOT_SUPPORTED ? OK : result;
}

int nvmlDeviceGetName(device *gpu, char *name, unsigned length) {
    return of_device(gpu, "name", name, length);
}

int nvmlDeviceGetUUID(device *gpu, char *uuid, unsigned length) {
    return of_device(gpu, "uuid", uuid, length);
}

int nvmlDeviceGetMinorNumber(device *gpu, unsigned *minor) { return small(gpu, "minor", minor); }

int nvmlDeviceGetPciInfo_v3(device *gpu, pci *info) {
    char text[64];
    int result = of_device(gpu, "pci", text, sizeof text);
    if (result != OK)
        return result;
    memset(info, 0, sizeof *info);
    sscanf(text, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    snprintf(info->bus_id, sizeof info->bus_id, "%08X:%02X:%02X.0", info->domain, info->bus,
             info->device);
    return OK;
}

int nvmlDeviceGetMemoryInfo(device *gpu, memory_v1 *memory) {
    int result = number(gpu, "memory_total", &memory->total);
    return result == OK ? number(gpu, "memory_used", &memory->used) : result;
}

int nvmlDeviceGetMemoryInfo_v2(device *gpu, memory_v2 *memory) {
    int result = number(gpu, "memory_v2_used", &memory->used);
    return result == OK ? number(gpu, "memory_total", &memory->total) : result;
}

int nvmlDeviceGetUtilizationRates(device *gpu, utilization *rates) {
    int result = small(gpu, "utilization", &rates->gpu);
    return result == OK ? small(gpu, "utilization_memory", &rates->memory) : result;
}

int nvmlDeviceGetTemperature(device *gpu, unsigned sensor, unsigned *celsius) {
    (void)sensor;
    return small(gpu, "temperature", celsius);
}

int nvmlDeviceGetPowerUsage(device *gpu, unsigned *mw) { return small(gpu, "power", mw); }

int nvmlDeviceGetEnforcedPowerLimit(device *gpu, unsigned *mw) {
    return small(gpu, "power_limit", mw);
}

int nvmlDeviceGetTotalEnergyConsumption(device *gpu, u64 *mj) { return number(gpu, "energy", mj); }

int nvmlDeviceGetClockInfo(device *gpu, unsigned type, unsigned *mhz) {
    static const char *names[] = {"clock_graphics", "clock_sm", "clock_memory", "clock_video"};
    return small(gpu, names[type], mhz);
}

int nvmlDeviceGetFanSpeed(device *gpu, unsigned *percent) { return small(gpu, "fan", percent); }

int nvmlDeviceGetPerformanceState(device *gpu, unsigned *state) {
    return small(gpu, "pstate", state);
}

int nvmlDeviceGetTotalEccErrors(device *gpu, unsigned type, unsigned counter, u64 *count) {
    (void)counter;
    return number(gpu, type == 0 ? "ecc_corrected" : "ecc_uncorrected", count);
}

int nvmlDeviceGetRemappedRows(device *gpu, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed) {
    *corrected = *uncorrected = *pending = 0;
    return small(gpu, "remap_failed", failed);
}

static int processes(device *gpu, const char *name, unsigned *count, process *found) {
    char text[2048], *word, *rest;
    unsigned wanted = 0, size = *count;
    int result = of_device(gpu, name, text, sizeof text);
    if (result != OK)
        return result;
    for (word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest), wanted++) {
        char *bytes = strchr(word, ':');
        if (!found || wanted >= size || !bytes)
            continue;
        memset(&found[wanted], 0, sizeof *found);
        found[wanted].pid = (unsigned)atoi(word);
        found[wanted].bytes = bytes[1] == '?' ? (u64)-1 : strtoull(bytes + 1, NULL, 0);
    }
    *count = wanted;
    return wanted > size ? INSUFFICIENT_SIZE : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *gpu, unsigned *count, process *found) {
    return processes(gpu, "compute", count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(device *gpu, unsigned *count, process *found) {
    return processes(gpu, "graphics", count, found);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(device *gpu, unsigned *count, process *found) {
    return processes(gpu, "mps", count, found);
}
