/* Stands for NVIDIA's libnvidia-ml.so.1: answers what the environment variable FAKE_NVML describes.
 *
 * One GPU after the other, separated by ';':   name|uuid|MiB|state|slices
 *   state   off, on, none (cannot be divided), lost (every question about it fails)
 *   slices  profile:uuid:instance:compute:MiB, separated by ','
 * The text "unloaded" is a driver that is not loaded; the empty text is a machine without a GPU.
 * A profile's places are those of a GPU of seven compute slices, 1 GiB each in the profile's name: 1g.1gb.
 * What nvmlDeviceGetIndex tells of a slice is its number under its GPU, as the real library does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, NOT_LOADED = 9, LOST = 15 };
enum { MAX_GPUS = 16, MAX_SLICES = 64, RESERVED_MIB = 512 };

typedef struct Device {
    char name[96], uuid[96], state[16];
    unsigned long long mib;
    int index, instance, compute;
    struct Device *gpu; /* of a slice; NULL: this is a GPU */
} Device;

static Device gpus[MAX_GPUS], slices[MAX_SLICES];
static unsigned gpu_count, slice_count;
static int users;

static void copy(char *into, size_t size, const char *text) { snprintf(into, size, "%s", text ? text : ""); }

static void read_slices(Device *gpu, char *text) {
    char *rest = NULL;
    int number = 0;
    for (char *part = strtok_r(text, ",", &rest); part; part = strtok_r(NULL, ",", &rest)) {
        Device *slice = &slices[slice_count++];
        char *inner = NULL, *profile = strtok_r(part, ":", &inner);
        memset(slice, 0, sizeof *slice);
        copy(slice->uuid, sizeof slice->uuid, strtok_r(NULL, ":", &inner));
        slice->instance = atoi(strtok_r(NULL, ":", &inner));
        slice->compute = atoi(strtok_r(NULL, ":", &inner));
        slice->mib = strtoull(strtok_r(NULL, ":", &inner), NULL, 10);
        slice->gpu = gpu;
        slice->index = number++;
        snprintf(slice->name, sizeof slice->name, "%.48s MIG %.32s", gpu->name, profile);
    }
}

static void read_machine(char *text) {
    char *rest = NULL;
    gpu_count = slice_count = 0;
    for (char *part = strtok_r(text, ";", &rest); part; part = strtok_r(NULL, ";", &rest)) {
        Device *gpu = &gpus[gpu_count];
        char *inner = NULL, *listed;
        memset(gpu, 0, sizeof *gpu);
        gpu->index = (int)gpu_count++;
        copy(gpu->name, sizeof gpu->name, strtok_r(part, "|", &inner));
        copy(gpu->uuid, sizeof gpu->uuid, strtok_r(NULL, "|", &inner));
        gpu->mib = strtoull(strtok_r(NULL, "|", &inner), NULL, 10);
        copy(gpu->state, sizeof gpu->state, strtok_r(NULL, "|", &inner));
        listed = strtok_r(NULL, "|", &inner);
        if (listed) read_slices(gpu, listed);
    }
}

#define ANSWERS(device)                                                                  \
    do {                                                                                 \
        if (!users) return UNINITIALIZED;                                                \
        if (!strcmp((device)->gpu ? (device)->gpu->state : (device)->state, "lost")) return LOST; \
    } while (0)

int nvmlInitWithFlags(unsigned flags) {
    const char *said = getenv("FAKE_NVML");
    char *text;
    (void)flags;
    if (said && !strcmp(said, "unloaded")) return NOT_LOADED;
    text = strdup(said ? said : "");
    read_machine(text);
    free(text);
    users++;
    return OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return users ? (users--, OK) : UNINITIALIZED; }
const char *nvmlErrorString(int code) { (void)code; return "of the fake driver"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { copy(text, size, "580.1"); return users ? OK : UNINITIALIZED; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = gpu_count; return users ? OK : UNINITIALIZED; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    if (!users) return UNINITIALIZED;
    if (index >= gpu_count) return INVALID;
    *device = &gpus[index];
    return OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    if (!users) return UNINITIALIZED;
    for (unsigned i = 0; i < gpu_count; i++)
        if (!strcmp(gpus[i].uuid, uuid)) return *device = &gpus[i], OK;
    for (unsigned i = 0; i < slice_count; i++)
        if (!strcmp(slices[i].uuid, uuid)) return *device = &slices[i], OK;
    return NOT_FOUND;
}
int nvmlDeviceGetName(Device *device, char *text, unsigned size) { ANSWERS(device); copy(text, size, device->name); return OK; }
int nvmlDeviceGetUUID(Device *device, char *text, unsigned size) { ANSWERS(device); copy(text, size, device->uuid); return OK; }
int nvmlDeviceGetIndex(Device *device, unsigned *index) { ANSWERS(device); *index = (unsigned)device->index; return OK; }
int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) { ANSWERS(device); *major = 9, *minor = 0; return OK; }

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    ANSWERS(device);
    *memory = (Memory){(device->mib + RESERVED_MIB) << 20, device->mib << 20, (unsigned long long)RESERVED_MIB << 20};
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *memory) {
    ANSWERS(device);
    memory->total = (device->mib + RESERVED_MIB) << 20;
    memory->reserved = (unsigned long long)RESERVED_MIB << 20;
    memory->free = device->mib << 20;
    memory->used = 0;
    return OK;
}

int nvmlDeviceGetMigMode(Device *device, unsigned *now, unsigned *pending) {
    ANSWERS(device);
    if (!strcmp(device->state, "none")) return NOT_SUPPORTED;
    *now = *pending = !strcmp(device->state, "on");
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) { ANSWERS(device); *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **slice) {
    ANSWERS(device);
    for (unsigned i = 0; i < slice_count; i++)
        if (slices[i].gpu == device && slices[i].index == (int)index) return *slice = &slices[i], OK;
    return NOT_FOUND;
}
int nvmlDeviceIsMigDeviceHandle(Device *device, unsigned *is_slice) { ANSWERS(device); *is_slice = device->gpu != NULL; return OK; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, Device **gpu) { ANSWERS(device); *gpu = device->gpu; return *gpu ? OK : INVALID; }
int nvmlDeviceGetGpuInstanceId(Device *device, unsigned *id) { ANSWERS(device); *id = (unsigned)device->instance; return device->gpu ? OK : INVALID; }

typedef struct { unsigned multiprocessors, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices; unsigned long long mb; } Attributes;
int nvmlDeviceGetAttributes_v2(Device *device, Attributes *attributes) {
    ANSWERS(device);
    memset(attributes, 0, sizeof *attributes);
    attributes->gpu_slices = attributes->compute_slices = (unsigned)device->compute;
    attributes->mb = device->mib;
    return device->gpu ? OK : NOT_SUPPORTED;
}

/* Two profiles are enough to see that they are read: 1g.1gb at seven places, 3g.4gb at two. */
typedef struct { unsigned version, id, p2p, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa; unsigned long long mb; char name[96]; } ProfileInfo;
typedef struct { unsigned start, size; } Place;
int nvmlDeviceGetGpuInstanceProfileInfoV(Device *device, unsigned profile, ProfileInfo *info) {
    ANSWERS(device);
    if (profile != 0 && profile != 2) return NOT_SUPPORTED;
    info->id = profile ? 9 : 19;
    info->slices = profile ? 3 : 1;
    info->instances = profile ? 2 : 7;
    info->mb = profile ? 4000 : 1000;
    copy(info->name, sizeof info->name, profile ? "MIG 3g.4gb" : "MIG 1g.1gb");
    return OK;
}
int nvmlDeviceGetGpuInstancePossiblePlacements_v2(Device *device, unsigned id, Place *places, unsigned *count) {
    unsigned size = id == 9 ? 4 : 1, most = id == 9 ? 2 : 7;
    ANSWERS(device);
    for (unsigned i = 0; places && i < most; i++) places[i] = (Place){i * size, size};
    *count = most;
    return OK;
}
