/* The state file and the library's own life: init, shutdown, handles. */
#include "state.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINES = 4096, CARDS = 64, MIG_DEVICES = 8 };

typedef struct { char *key, *value; } line;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *text;
static line lines[LINES];
static size_t line_count;
static struct stat read_as;

static int is_open, count_at_init;
static char load_at_init[32];
static device cards[CARDS], mig_devices[CARDS][MIG_DEVICES];
int waits_under_way, event_sets, gpm_samples;

static int by_key(const void *one, const void *other) {
    return strcmp(((const line *)one)->key, ((const line *)other)->key);
}

/* Reads the file anew when it was replaced. */
static int refresh(void) {
    const char *path = getenv("FAKE_NVML");
    struct stat now;
    FILE *file;
    char *word, *rest;
    size_t size;
    if (!path || stat(path, &now) != 0)
        return DRIVER_NOT_LOADED;
    if (text && now.st_ino == read_as.st_ino && now.st_size == read_as.st_size &&
        memcmp(&now.st_mtim, &read_as.st_mtim, sizeof now.st_mtim) == 0)
        return OK;
    file = fopen(path, "r");
    if (!file)
        return DRIVER_NOT_LOADED;
    fstat(fileno(file), &read_as);
    free(text);
    text = malloc((size_t)read_as.st_size + 1);
    size = fread(text, 1, (size_t)read_as.st_size, file);
    text[size] = 0;
    fclose(file);
    line_count = 0;
    for (word = strtok_r(text, "\n", &rest); word && line_count < LINES;
         word = strtok_r(NULL, "\n", &rest)) {
        char *space = strchr(word, ' ');
        if (!space)
            continue;
        *space = 0;
        lines[line_count].key = word;
        lines[line_count++].value = space + 1;
    }
    qsort(lines, line_count, sizeof *lines, by_key);
    return OK;
}

static int look_up_now(const char *key, char *value, size_t size) {
    line wanted = {(char *)key, NULL}, *found;
    int result;
    pthread_mutex_lock(&lock);
    result = refresh();
    if (result == OK) {
        found = bsearch(&wanted, lines, line_count, sizeof *lines, by_key);
        if (!found)
            result = NOT_SUPPORTED;
        else {
            snprintf(value, size, "%s", found->value);
            result = value[0] == '!' ? atoi(value + 1) : OK;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int look_up(const char *key, char *value, size_t size) {
    int result = look_up_now(key, value, size);
    while (result == OK && strcmp(value, "~") == 0) {
        usleep(5000);
        result = look_up_now(key, value, size);
    }
    return result;
}

static void note(const char *suffix, const char *what) {
    char path[4096];
    FILE *file;
    snprintf(path, sizeof path, "%s.%s", getenv("FAKE_NVML"), suffix);
    file = fopen(path, "a");
    if (file) {
        fprintf(file, "%s\n", what);
        fclose(file);
    }
}

void misuse(const char *what) { note("misuse", what); }

int state(void) {
    char load[32] = "";
    if (!is_open)
        return UNINITIALIZED;
    look_up("load", load, sizeof load);
    return strcmp(load, load_at_init) == 0 ? OK : UNKNOWN;
}

static int live_count(void) {
    char count[32] = "0";
    return look_up("count", count, sizeof count) == OK ? atoi(count) : 0;
}

int of_device(device *gpu, const char *name, char *value, size_t size) {
    char key[96];
    int result = state();
    if (result != OK)
        return result;
    if (gpu->mig < 0)
        snprintf(key, sizeof key, "gpu.%d.%s", gpu->index, name);
    else
        snprintf(key, sizeof key, "gpu.%d.mig.%d.%s", gpu->index, gpu->mig, name);
    return look_up(key, value, size);
}

int number(device *gpu, const char *name, u64 *value) {
    char digits[64];
    int result = of_device(gpu, name, digits, sizeof digits);
    if (result == OK)
        *value = strtoull(digits, NULL, 0);
    return result;
}

int small(device *gpu, const char *name, unsigned *value) {
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
    count_at_init = live_count();
    is_open = 1;
    note("inits", "init");
    return OK;
}

int nvmlShutdown(void) {
    int was_open = is_open;
    if (waits_under_way)
        misuse("shut down under a wait for events");
    if (event_sets)
        misuse("shut down with an event set");
    if (gpm_samples)
        misuse("shut down with samples");
    event_sets = gpm_samples = 0;
    is_open = 0;
    return was_open ? OK : UNINITIALIZED;
}

const char *nvmlErrorString(int result) {
    static __thread char message[32];
    snprintf(message, sizeof message, "fake error %d", result);
    return message;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    return is_open ? look_up("driver", version, length) : UNINITIALIZED;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    char digits[32];
    int result = look_up("cuda", digits, sizeof digits);
    if (result == OK)
        *version = atoi(digits);
    return result;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char digits[32];
    int result = state();
    if (result == OK)
        result = look_up("count", digits, sizeof digits);
    *count = (unsigned)count_at_init;
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **gpu) {
    char ignored[64];
    int result;
    if (index >= CARDS || (is_open && (int)index >= count_at_init))
        return INVALID_ARGUMENT;
    cards[index].index = (int)index;
    cards[index].mig = -1;
    *gpu = &cards[index];
    result = of_device(*gpu, "handle", ignored, sizeof ignored);
    if (result != OK && result != NOT_SUPPORTED)
        return result;
    return (int)index < live_count() ? OK : GPU_IS_LOST;
}

int nvmlDeviceGetMaxMigDeviceCount(device *gpu, unsigned *count) {
    return small(gpu, "mig_device_max", count);
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *gpu, unsigned index, device **instance) {
    char uuid[96];
    int result;
    if (index >= MIG_DEVICES)
        return INVALID_ARGUMENT;
    mig_devices[gpu->index][index].index = gpu->index;
    mig_devices[gpu->index][index].mig = (int)index;
    *instance = &mig_devices[gpu->index][index];
    result = of_device(*instance, "uuid", uuid, sizeof uuid);
    return result == NOT_SUPPORTED ? NOT_FOUND : result;
}
