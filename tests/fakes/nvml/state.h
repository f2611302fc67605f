/* What the stand-in for libnvidia-ml.so.1 answers: values of a text file, read when it changes.
 *
 * The file, named by FAKE_NVML, has one `key value` on a line. A key that is missing is
 * NOT_SUPPORTED; a value `!15` is that error's number (nvmlReturn_t); a value `~` hangs until it
 * is another. Structures and signatures follow nvml.h as nvidia-ml-py declares them.
 *
 *     driver          the running driver's version; init fails with 18 (LIB_RM_VERSION_MISMATCH)
 *                     where LIBRARY_VERSION, compiled in, is another
 *     init            only of use as an error
 *     count           cards there are. Like the real one, the library counts them when it is
 *                     initialised; one that has gone since is lost (15)
 *     load            changes when the kernel module was loaded anew: what was initialised
 *                     before it fails with 999 (UNKNOWN) until init is called again
 *     gpu.N.<name>    see the functions
 *     gpu.N.mig.M.…   the same, of the MIG device M
 *     gpu.N.field.F   a field value, of all links or of none; gpu.N.field.F.S: of scope S
 *     gpu.N.fields    only of use as an error, of all field values at once
 *     gpu.N.field_type    the nvmlValueType_t that all of them have; 3 (64 bits) without it
 *     xids            card:number card:number …; more are appended
 *     event_wait      only of use as an error
 *     gpu.N.events    only of use as an error: of each wait for events of the card
 *
 * Compiled with -DOLD_DRIVER it has no function that came after release 470.
 * A use that would crash the real library is written to the file FAKE_NVML with `.misuse`
 * behind it, and each initialisation to the one with `.inits`.
 */
#ifndef STATE_H
#define STATE_H

#include <stddef.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15,
       VERSION_MISMATCH = 18, ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999 };

#ifndef LIBRARY_VERSION
#define LIBRARY_VERSION "550.54"
#endif

typedef unsigned long long u64;

/* A card, or the MIG device `mig` of it; -1: the card itself. */
typedef struct { int index, mig; } device;

/* Copies the value of `key`; returns NVML's return code. */
int look_up(const char *key, char *value, size_t size);

/* Notes what the real library would not survive. */
void misuse(const char *what);

/* Whether the library is of use: initialised, and since the module was last loaded. */
int state(void);

/* The card's own value of the name, as text or as a number. */
int of_device(device *gpu, const char *name, char *value, size_t size);
int number(device *gpu, const char *name, u64 *value);
int small(device *gpu, const char *name, unsigned *value);

/* What must be given back before the library is shut down. */
extern int waits_under_way, event_sets, gpm_samples;

#endif
