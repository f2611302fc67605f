/* Events: a set delivers what is appended to `xids` after its making, for its cards. */
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CARDS = 64, XID = 8 };

typedef struct { int is_registered[CARDS]; device *cards[CARDS]; int seen; } event_set;
typedef struct {
    device *gpu;
    u64 type, data;
    unsigned gpu_instance, compute_instance;
} event;

/* Returns how many events there are; the one numbered `wanted` into the other two. */
static int read_events(int wanted, int *card, u64 *xid) {
    char text[4096], *word, *rest;
    int count = 0;
    if (look_up("xids", text, sizeof text) != OK)
        return 0;
    for (word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest), count++)
        if (count == wanted && strchr(word, ':')) {
            *card = atoi(word);
            *xid = strtoull(strchr(word, ':') + 1, NULL, 0);
        }
    return count;
}

int nvmlEventSetCreate(event_set **set) {
    int card;
    u64 xid;
    if (state() != OK)
        return state();
    *set = calloc(1, sizeof **set);
    (*set)->seen = read_events(-1, &card, &xid);
    event_sets++;
    return OK;
}

int nvmlEventSetFree(event_set *set) {
    if (state() == UNINITIALIZED)
        misuse("freed an event set of a library that was shut down");
    event_sets--;
    free(set);
    return OK;
}

int nvmlDeviceGetSupportedEventTypes(device *gpu, u64 *types) {
    return number(gpu, "event_types", types);
}

int nvmlDeviceRegisterEvents(device *gpu, u64 types, event_set *set) {
    char ignored[32];
    int result = of_device(gpu, "register", ignored, sizeof ignored);
    if (result != OK && result != NOT_SUPPORTED)
        return result;
    set->is_registered[gpu->index] = (types & XID) != 0;
    set->cards[gpu->index] = gpu;
    return OK;
}

#ifndef OLD_DRIVER
int nvmlEventSetWait_v2(event_set *set, event *found, unsigned timeout_ms) {
    char ignored[32];
    int at, card = 0, result = TIMEOUT;
    unsigned waited;
    u64 xid = 0;
    if (state() == UNINITIALIZED)
        misuse("waited for events of a library that was shut down");
    waits_under_way++;
    for (waited = 0; result == TIMEOUT && waited <= timeout_ms; waited += 5) {
        int failure = state() == OK ? look_up("event_wait", ignored, sizeof ignored) : state();
        for (at = 0; at < CARDS && (failure == OK || failure == NOT_SUPPORTED); at++)
            if (set->is_registered[at])
                failure = of_device(set->cards[at], "events", ignored, sizeof ignored);
        if (failure != OK && failure != NOT_SUPPORTED)
            result = failure;
        else if (read_events(set->seen, &card, &xid) > set->seen) {
            set->seen++;
            if (set->is_registered[card]) {
                memset(found, 0, sizeof *found);
                found->gpu = set->cards[card];
                found->type = XID;
                found->data = xid;
                result = OK;
            }
        } else
            usleep(5000);
    }
    waits_under_way--;
    return result;
}
#endif
