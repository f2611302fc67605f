/* Make a simulated BMC slow and its network lossy. Loaded into ipmi_sim with LD_PRELOAD.
 *
 * BMC_DELAY_US: how long each answer takes, which is also the time in which the simulator, as a
 * BMC, does nothing else. BMC_LOSS_PERCENT: how many answers are lost, by chance. Only datagrams
 * over IP are touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct timespec delay;
static double loss;
static unsigned int chance;

__attribute__((constructor)) static void read_settings(void) {
    const char *text = getenv("BMC_DELAY_US");
    long us = text ? atol(text) : 0;
    delay.tv_sec = us / 1000000;
    delay.tv_nsec = us % 1000000 * 1000;
    text = getenv("BMC_LOSS_PERCENT");
    loss = text ? atof(text) / 100 : 0;
    chance = (unsigned int)getpid() * 2654435761u;
}

/* Wait as long as the answer takes; whether it is to be lost then. */
static int is_lost(int number) {
    int kind = 0;
    socklen_t size = sizeof kind;
    struct sockaddr_storage own;
    struct timespec left = delay;

    if (getsockopt(number, SOL_SOCKET, SO_TYPE, &kind, &size) || kind != SOCK_DGRAM)
        return 0;
    size = sizeof own;
    if (getsockname(number, (struct sockaddr *)&own, &size)
        || (own.ss_family != AF_INET && own.ss_family != AF_INET6))
        return 0;
    while (nanosleep(&left, &left))
        ;
    return rand_r(&chance) < loss * RAND_MAX;
}

ssize_t sendmsg(int number, const struct msghdr *message, int flags) {
    static ssize_t (*next)(int, const struct msghdr *, int);
    size_t part, size = 0;

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "sendmsg");
    if (!is_lost(number))
        return next(number, message, flags);
    for (part = 0; part < message->msg_iovlen; part++)
        size += message->msg_iov[part].iov_len;
    return (ssize_t)size;
}

ssize_t sendto(int number, const void *data, size_t size, int flags,
               const struct sockaddr *to, socklen_t to_size) {
    static ssize_t (*next)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "sendto");
    return is_lost(number) ? (ssize_t)size : next(number, data, size, flags, to, to_size);
}
