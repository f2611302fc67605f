/* A module for OpenIPMI's ipmi_sim: answers to commands that the simulator does not know.
 *
 * Its option is a file of lines `netfn cmd prefix answer`, each in hexadecimal, "-" for nothing.
 * A request of that command whose data begin with `prefix` gets `answer`, which begins with the
 * completion code. The commands are those in the file at the start; the file is read again for
 * each request. The declarations are those of OpenIPMI 2.0.33.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct message {
    void *src_addr;
    int src_len;
    long oem_data;
    unsigned char channel;
    void *orig_channel;
    unsigned char authtype;
    uint32_t seq, sid;
    union {
        struct { unsigned char *authcode, authcode_data[16]; } rmcp;
        struct {
            unsigned char payload, encrypted, authenticated, iana[3];
            uint16_t payload_id;
            unsigned char *authdata;
            unsigned int authdata_len;
        } rmcpp;
    } parameters;
    unsigned char netfn, rs_addr, rs_lun, rq_addr, rq_lun, rq_seq, cmd;
    unsigned char *data;
    unsigned int len;
};

typedef void (*handler)(void *mc, struct message *, unsigned char *, unsigned int *, void *);
int ipmi_emu_register_cmd_handler(unsigned char netfn, unsigned char cmd, handler, void *);
/* It is declared as int, and returns nothing. */
void ipmi_emu_register_group_extension_handler(unsigned char group, handler, void *);

enum { GROUP_EXTENSION = 0x2c, INVALID_COMMAND = 0xc1, MAX_BYTES = 256 };

static char file_name[4096];

static int read_hex(const char *text, unsigned char *bytes)
{
    unsigned int byte;
    int count = 0;

    while (count < MAX_BYTES && sscanf(text + 2 * count, "%2x", &byte) == 1)
        bytes[count++] = (unsigned char)byte;
    return count;
}

static void answer(void *mc, struct message *msg, unsigned char *rdata, unsigned int *rdata_len,
                   void *unused)
{
    unsigned int netfn, cmd;
    char prefix[2 * MAX_BYTES + 1], text[2 * MAX_BYTES + 1];
    unsigned char bytes[MAX_BYTES];
    FILE *file = fopen(file_name, "r");

    (void)mc;
    (void)unused;
    rdata[0] = INVALID_COMMAND;
    *rdata_len = 1;
    while (file && fscanf(file, "%x %x %512s %512s", &netfn, &cmd, prefix, text) == 4) {
        unsigned int length = (unsigned int)read_hex(prefix, bytes);

        if (netfn != msg->netfn || cmd != msg->cmd || length > msg->len
            || memcmp(bytes, msg->data, length) != 0)
            continue;
        *rdata_len = (unsigned int)read_hex(text, rdata);
        break;
    }
    if (file)
        fclose(file);
}

int ipmi_sim_module_print_version(void *sys, const char *options)
{
    (void)sys;
    (void)options;
    return 0;
}

int ipmi_sim_module_init(void *sys, const char *options)
{
    unsigned int netfn, cmd;
    char prefix[2 * MAX_BYTES + 1], text[2 * MAX_BYTES + 1];
    unsigned char bytes[MAX_BYTES];
    FILE *file;
    int error = 0;

    (void)sys;
    snprintf(file_name, sizeof file_name, "%s", options);
    file = fopen(file_name, "r");
    if (!file)
        return 2;
    while (!error && fscanf(file, "%x %x %512s %512s", &netfn, &cmd, prefix, text) == 4) {
        if (netfn == GROUP_EXTENSION && read_hex(prefix, bytes))
            ipmi_emu_register_group_extension_handler(bytes[0], answer, NULL);
        else
            error = ipmi_emu_register_cmd_handler((unsigned char)netfn, (unsigned char)cmd, answer, NULL);
    }
    fclose(file);
    return error;
}
