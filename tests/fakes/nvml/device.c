/* What a card tells of itself: identity, load, power, clocks, memory, links, processes. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; u64 bytes; unsigned gpu_instance, compute_instance; } process;
typedef struct { u64 reference_ns, violation_ns; } violation;
typedef struct { unsigned max, high, partial, low, none; } remap_histogram;
typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type;
    int result;
    u64 value;
} field_value;
typedef struct { unsigned char cluster[16]; int status; unsigned clique, state; } fabric;
typedef struct {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpegs, ofas, gpu_slices,
        compute_slices;
    u64 memory_mib;
} attributes;

#define TEXT(function, name) \
    int function(device *gpu, char *value, unsigned length) { \
        return of_device(gpu, name, value, length); \
    }
#define NUMBER(function, name) \
    int function(device *gpu, unsigned *value) { return small(gpu, name, value); }
#define PAIR(function, name) \
    int function(device *gpu, unsigned *one, unsigned *other) { \
        return pair(gpu, name, one, other); \
    }

static int pair(device *gpu, const char *name, unsigned *one, unsigned *other) {
    char text[64];
    int result = of_device(gpu, name, text, sizeof text);
    if (result == OK && sscanf(text, "%u %u", one, other) < 2)
        *other = 0;
    return result;
}

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
NUMBER(nvmlDeviceGetMinorNumber, "minor")
NUMBER(nvmlDeviceGetPersistenceMode, "persistence_mode")
NUMBER(nvmlDeviceGetPerformanceState, "pstate")
NUMBER(nvmlDeviceGetPowerUsage, "power")
NUMBER(nvmlDeviceGetEnforcedPowerLimit, "power_limit")
NUMBER(nvmlDeviceGetPowerManagementLimit, "power_limit_set")
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, "power_limit_default")
PAIR(nvmlDeviceGetPowerManagementLimitConstraints, "power_limit_range")
NUMBER(nvmlDeviceGetFanSpeed, "fan")
NUMBER(nvmlDeviceGetNumFans, "fan_count")
PAIR(nvmlDeviceGetEncoderUtilization, "encoder")
PAIR(nvmlDeviceGetDecoderUtilization, "decoder")
PAIR(nvmlDeviceGetEccMode, "ecc_mode")
PAIR(nvmlDeviceGetMigMode, "mig_mode")
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pending")
NUMBER(nvmlDeviceGetPcieReplayCounter, "pcie_replays")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_generation")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_generation_max")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
NUMBER(nvmlDeviceGetComputeMode, "compute_mode")
NUMBER(nvmlDeviceGetGpuInstanceId, "gpu_instance")
NUMBER(nvmlDeviceGetComputeInstanceId, "compute_instance")

int nvmlDeviceGetCudaComputeCapability(device *gpu, int *major, int *minor) {
    return pair(gpu, "compute_capability", (unsigned *)major, (unsigned *)minor);
}

int nvmlDeviceGetGpuFabricInfo(device *gpu, fabric *info) {
    return small(gpu, "fabric_state", &info->state);
}

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
    if (result == OK)
        result = number(gpu, "memory_used", &memory->used);
    memory->free = memory->total - memory->used;
    return result;
}

int nvmlDeviceGetUtilizationRates(device *gpu, utilization *rates) {
    int result = small(gpu, "utilization", &rates->gpu);
    return result == OK ? small(gpu, "utilization_memory", &rates->memory) : result;
}

int nvmlDeviceGetTemperature(device *gpu, unsigned sensor, unsigned *celsius) {
    return sensor == 0 ? small(gpu, "temperature", celsius) : INVALID_ARGUMENT;
}

int nvmlDeviceGetTemperatureThreshold(device *gpu, unsigned threshold, unsigned *celsius) {
    char name[32];
    snprintf(name, sizeof name, "threshold.%u", threshold);
    return small(gpu, name, celsius);
}

int nvmlDeviceGetTotalEnergyConsumption(device *gpu, u64 *mj) { return number(gpu, "energy", mj); }

static int clock_of(device *gpu, const char *prefix, unsigned type, unsigned *mhz) {
    static const char *names[] = {"graphics", "sm", "memory", "video"};
    char name[32];
    snprintf(name, sizeof name, "%s_%s", prefix, names[type % 4]);
    return small(gpu, name, mhz);
}

int nvmlDeviceGetClockInfo(device *gpu, unsigned type, unsigned *mhz) {
    return clock_of(gpu, "clock", type, mhz);
}

int nvmlDeviceGetMaxClockInfo(device *gpu, unsigned type, unsigned *mhz) {
    return clock_of(gpu, "clock_max", type, mhz);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(device *gpu, u64 *reasons) {
    return number(gpu, "throttle_reasons", reasons);
}

int nvmlDeviceGetSupportedClocksThrottleReasons(device *gpu, u64 *reasons) {
    return number(gpu, "throttle_reasons_supported", reasons);
}

int nvmlDeviceGetViolationStatus(device *gpu, unsigned policy, violation *time) {
    char name[32];
    snprintf(name, sizeof name, "throttled.%u", policy);
    time->reference_ns = 1;
    return number(gpu, name, &time->violation_ns);
}

int nvmlDeviceGetFanSpeed_v2(device *gpu, unsigned fan, unsigned *percent) {
    char name[32];
    snprintf(name, sizeof name, "fan.%u", fan);
    return small(gpu, name, percent);
}

int nvmlDeviceGetEncoderStats(device *gpu, unsigned *count, unsigned *fps, unsigned *latency) {
    char text[64];
    int result = of_device(gpu, "encoder_stats", text, sizeof text);
    if (result == OK)
        sscanf(text, "%u %u %u", count, fps, latency);
    return result;
}

int nvmlDeviceGetTotalEccErrors(device *gpu, unsigned type, unsigned counter, u64 *count) {
    char name[64];
    snprintf(name, sizeof name, "%s_%s", counter == 0 ? "ecc_volatile" : "ecc",
             type == 0 ? "corrected" : "uncorrected");
    return number(gpu, name, count);
}

int nvmlDeviceGetMemoryErrorCounter(device *gpu, unsigned type, unsigned counter,
                                    unsigned location, u64 *count) {
    char name[64];
    snprintf(name, sizeof name, "ecc.%u.%u.%u", type, counter, location);
    return number(gpu, name, count);
}

int nvmlDeviceGetRemappedRows(device *gpu, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed) {
    char text[64];
    int result = of_device(gpu, "remapped", text, sizeof text);
    if (result == OK)
        sscanf(text, "%u %u %u %u", corrected, uncorrected, pending, failed);
    return result;
}

int nvmlDeviceGetRowRemapperHistogram(device *gpu, remap_histogram *banks) {
    char text[64];
    int result = of_device(gpu, "remap_banks", text, sizeof text);
    if (result == OK)
        sscanf(text, "%u %u %u %u %u", &banks->max, &banks->high, &banks->partial, &banks->low,
               &banks->none);
    return result;
}

int nvmlDeviceGetRetiredPages(device *gpu, unsigned cause, unsigned *count, u64 *pages) {
    char name[32];
    unsigned wanted = 0, size = *count;
    int result;
    snprintf(name, sizeof name, "retired.%u", cause);
    result = small(gpu, name, &wanted);
    if (result != OK)
        return result;
    *count = wanted;
    if (wanted > size)
        return INSUFFICIENT_SIZE;
    for (size = 0; pages && size < wanted; size++)
        pages[size] = size * 4096;
    return OK;
}

int nvmlDeviceGetNvLinkState(device *gpu, unsigned link, unsigned *is_active) {
    char name[32];
    snprintf(name, sizeof name, "nvlink.%u", link);
    return small(gpu, name, is_active);
}

int nvmlDeviceGetNvLinkErrorCounter(device *gpu, unsigned link, unsigned counter, u64 *count) {
    char name[48];
    snprintf(name, sizeof name, "nvlink.%u.errors.%u", link, counter);
    return number(gpu, name, count);
}

int nvmlDeviceGetFieldValues(device *gpu, int count, field_value *fields) {
    char ignored[32];
    int at, result = of_device(gpu, "fields", ignored, sizeof ignored);
    if (result != OK && result != NOT_SUPPORTED)
        return result;
    for (at = 0; at < count; at++) {
        char name[48];
        if (small(gpu, "field_type", &fields[at].type) != OK)
            fields[at].type = 3; /* unsigned long long */
        if (fields[at].scope == 0 || fields[at].scope == (unsigned)-1)
            snprintf(name, sizeof name, "field.%u", fields[at].field);
        else
            snprintf(name, sizeof name, "field.%u.%u", fields[at].field, fields[at].scope);
        fields[at].result = number(gpu, name, &fields[at].value);
        if (fields[at].result == GPU_IS_LOST)
            return GPU_IS_LOST;
    }
    return OK;
}

int nvmlDeviceGetAttributes_v2(device *gpu, attributes *of) {
    char text[64];
    int result = of_device(gpu, "attributes", text, sizeof text);
    memset(of, 0, sizeof *of);
    if (result == OK)
        sscanf(text, "%u %u %llu", &of->gpu_slices, &of->compute_slices, &of->memory_mib);
    return result;
}

static int processes(device *gpu, const char *name, unsigned *count, process *found) {
    char text[8192], *word, *rest;
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

#define PROCESSES(function, name) \
    int function(device *gpu, unsigned *count, process *found) { \
        return processes(gpu, name, count, found); \
    }

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps")

#ifndef OLD_DRIVER
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")
PAIR(nvmlDeviceGetJpgUtilization, "jpeg")
PAIR(nvmlDeviceGetOfaUtilization, "optical_flow")

int nvmlDeviceGetMemoryInfo_v2(device *gpu, memory_v2 *memory) {
    int result = number(gpu, "memory_v2_used", &memory->used);
    if (memory->version != (sizeof *memory | 2 << 24))
        return ARGUMENT_VERSION_MISMATCH;
    if (result == OK)
        result = number(gpu, "memory_total", &memory->total);
    if (result == OK && number(gpu, "memory_reserved", &memory->reserved) != OK)
        memory->reserved = 0;
    memory->free = memory->total - memory->used - memory->reserved;
    return result;
}

int nvmlDeviceGetCurrentClocksEventReasons(device *gpu, u64 *reasons) {
    return number(gpu, "throttle_reasons", reasons);
}

int nvmlDeviceGetSupportedClocksEventReasons(device *gpu, u64 *reasons) {
    return number(gpu, "throttle_reasons_supported", reasons);
}
#endif
