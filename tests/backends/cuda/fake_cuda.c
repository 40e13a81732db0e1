/* Fake CUDA devices for rehearsals: their memory is the host's, copies happen at once, kernels and matrix products write
 * nothing, streams and events are numbers. ONNX Runtime's real CUDA provider runs on them, so that what it decides on the
 * host can be seen without a GPU: where nodes are placed, what is copied, which attention kernel is taken, whether
 * launches can be captured. Values mean nothing. Built and used by `make gpu-rehearsal`.
 *
 * Variables, read once:
 *   FAKE_CUDA_CAPABILITIES  compute capability of each device, times ten: "90" (the default) is one, "90,75" are two
 *   FAKE_CUDA_MEMORY_MB     memory of each device; 80 GiB by default
 *   FAKE_CUDA_MIG           if set, devices are parts of a card: names end so, NVML knows them as MIG-… and tells less
 *   FAKE_CUDA_LAUNCH_US     how long the host is busy with each launch; 0 by default
 *   FAKE_CUDA_TRACE         if set, every call is printed, with CAPTURING before those in a capture
 * Functions for tests, by ctypes: fake_count, fake_limit, fake_hold_copies, fake_release_copies. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "cuda_runtime_api.h"

enum { MAX_DEVICES = 8, HEADER = 256, CUBLAS_BYTES = 8 << 20, OUT_OF_MEMORY = 2 };
enum { COPIES_IN, COPIES_OUT, COPIES_WITHIN, LAUNCHES, GRAPH_LAUNCHES, COPIES_CAPTURED, UNSAFE_CAPTURED, CONTEXTS, PINNED,
       HELD, COUNTERS };
static const char *counter_names[COUNTERS] = { "copies_in", "copies_out", "copies_within", "launches", "graph_launches",
    "copies_while_capturing", "unsafe_while_capturing", "contexts", "pinned_bytes", "held_copies" };
static long counters[COUNTERS];
static int device_count = 1, capabilities[MAX_DEVICES] = { 90 }, is_mig, traces;
static size_t total = 80ull << 30, used[MAX_DEVICES], limit_now[MAX_DEVICES];
static int is_limited[MAX_DEVICES];
static long launch_ns, handles = 0x1000;
static int capturing;
static __thread int current;
static size_t held_from;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;

__attribute__((constructor)) static void read_variables(void) {
    char *value = getenv("FAKE_CUDA_CAPABILITIES");
    if (value && *value)
        for (device_count = 0; *value && device_count < MAX_DEVICES; value += *value == ',')
            capabilities[device_count++] = strtol(value, &value, 10);
    if ((value = getenv("FAKE_CUDA_MEMORY_MB"))) total = strtoull(value, 0, 10) << 20;
    if ((value = getenv("FAKE_CUDA_LAUNCH_US"))) launch_ns = 1000 * strtol(value, 0, 10);
    is_mig = getenv("FAKE_CUDA_MIG") != 0;
    traces = getenv("FAKE_CUDA_TRACE") != 0;
}

static void add(int counter, long n) { __atomic_fetch_add(&counters[counter], n, __ATOMIC_SEQ_CST); }
static void trace(const char *call, size_t size) {
    if (traces) fprintf(stderr, "[fake] %s%s %zu\n", capturing ? "CAPTURING " : "", call, size);
}
/* A call that makes the current device's context where it has none. */
static void touch(void) { __atomic_fetch_or(&counters[CONTEXTS], 1L << current, __ATOMIC_SEQ_CST); }
/* A call that CUDA forbids in every thread while a stream is captured in the strictest mode. */
static void unsafe(const char *call, size_t size) {
    touch(); trace(call, size); if (capturing) add(UNSAFE_CAPTURED, 1);
}
static void launch(const char *call) {
    touch(); trace(call, 0); add(LAUNCHES, 1);
    if (!launch_ns) return;
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < launch_ns);
}

/* For tests. "contexts" is a set of bits: devices that have a context. */
long fake_count(const char *name) {
    for (int i = 0; i < COUNTERS; i++) if (!strcmp(name, counter_names[i])) return counters[i];
    return -1;
}
/* From now on only so many bytes of a device are free, whatever its size; -1 lifts that. */
void fake_limit(int device, long bytes) { is_limited[device] = bytes >= 0; limit_now[device] = used[device] + bytes; }
/* Copies to a device of at least so many bytes wait until they are released: a model that takes long to load. */
void fake_hold_copies(size_t bytes) { held_from = bytes; }
void fake_release_copies(void) {
    pthread_mutex_lock(&lock); held_from = 0; pthread_cond_broadcast(&released); pthread_mutex_unlock(&lock);
}

/* Memory: a header before each block says whose it is. */
typedef struct { size_t size; int device, is_pinned; } Header;
static size_t limit_of(int device) { return is_limited[device] ? limit_now[device] : total; }
static int take(int device, size_t n) {
    int fits;
    pthread_mutex_lock(&lock);
    fits = used[device] + n <= limit_of(device);
    if (fits) used[device] += n;
    pthread_mutex_unlock(&lock);
    return fits;
}
static void give(int device, size_t n) { pthread_mutex_lock(&lock); used[device] -= n; pthread_mutex_unlock(&lock); }
static void *block(size_t n, int is_pinned) {
    char *p = aligned_alloc(HEADER, HEADER + (n + HEADER - 1) / HEADER * HEADER);
    *(Header *)p = (Header){ n, current, is_pinned };
    return p + HEADER;
}
static void drop(void *p) {
    if (!p) return;
    Header *header = (Header *)((char *)p - HEADER);
    if (header->is_pinned) add(PINNED, -(long)header->size); else give(header->device, header->size);
    free(header);
}
cudaError_t cudaMemGetInfo(size_t *f, size_t *t) {
    size_t limit = limit_of(current); touch();
    *f = used[current] < limit ? limit - used[current] : 0; *t = total; return 0;
}
cudaError_t cudaMalloc(void **p, size_t n) {
    unsafe("malloc", n); if (!take(current, n)) return OUT_OF_MEMORY;
    *p = block(n, 0); return 0;
}
cudaError_t cudaFree(void *p) { unsafe("free", 0); drop(p); return 0; }
static cudaError_t pinned(void **p, size_t n) { unsafe("hostAlloc", n); *p = block(n, 1); add(PINNED, n); return 0; }
cudaError_t cudaMallocHost(void **p, size_t n) { return pinned(p, n); }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) { return pinned(p, n); }
cudaError_t cudaFreeHost(void *p) { unsafe("freeHost", 0); drop(p); return 0; }
cudaError_t cudaHostRegister(void *p, size_t n, unsigned f) { return 0; }

static void copied(const char *call, size_t n, enum cudaMemcpyKind k) {
    touch(); trace(call, n);
    add(k == cudaMemcpyHostToDevice ? COPIES_IN : k == cudaMemcpyDeviceToHost ? COPIES_OUT : COPIES_WITHIN, 1);
    if (capturing) add(COPIES_CAPTURED, 1);
    if (k != cudaMemcpyHostToDevice) return;
    pthread_mutex_lock(&lock);
    if (held_from && n >= held_from) {
        add(HELD, 1);
        while (held_from) pthread_cond_wait(&released, &lock);
        add(HELD, -1);
    }
    pthread_mutex_unlock(&lock);
}
cudaError_t cudaMemcpy(void *d, const void *s, size_t n, enum cudaMemcpyKind k) {
    copied("memcpy", n, k); memcpy(d, s, n); return 0;
}
cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, enum cudaMemcpyKind k, cudaStream_t st) {
    copied("memcpyAsync", n, k); memcpy(d, s, n); return 0;
}
cudaError_t cudaMemcpy2DAsync(void *d, size_t dp, const void *s, size_t sp, size_t w, size_t h, enum cudaMemcpyKind k,
                              cudaStream_t st) {
    copied("memcpy2DAsync", w * h, k);
    for (size_t i = 0; i < h; i++) memcpy((char *)d + i * dp, (const char *)s + i * sp, w);
    return 0;
}
cudaError_t cudaMemcpyFromSymbol(void *d, const void *s, size_t n, size_t o, enum cudaMemcpyKind k) {
    memset(d, 0, n); return 0;
}
cudaError_t cudaMemset(void *p, int v, size_t n) { touch(); memset(p, v, n); return 0; }
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s) { touch(); memset(p, v, n); return 0; }

/* Devices. */
cudaError_t cudaSetDevice(int d) { if (d < 0 || d >= device_count) return 101; current = d; touch(); return 0; }
cudaError_t cudaGetDevice(int *d) { *d = current; return 0; }
cudaError_t cudaGetDeviceCount(int *d) { *d = device_count; return 0; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "Fake H100");
    p->major = capabilities[d] / 10; p->minor = capabilities[d] % 10;
    p->totalGlobalMem = total; p->multiProcessorCount = 132; p->warpSize = 32; p->l2CacheSize = 50 << 20;
    p->sharedMemPerBlock = 49152; p->sharedMemPerBlockOptin = 232448; p->sharedMemPerMultiprocessor = 233472;
    p->maxThreadsPerMultiProcessor = 2048; p->regsPerBlock = 65536; p->regsPerMultiprocessor = 65536;
    p->maxGridSize[0] = 2147483647; p->maxGridSize[1] = 65535; p->maxGridSize[2] = 65535;
    p->maxThreadsPerBlock = 1024; p->maxThreadsDim[0] = 1024; p->maxThreadsDim[1] = 1024; p->maxThreadsDim[2] = 64;
    return 0;
}
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) {
    switch (a) {
    case cudaDevAttrComputeCapabilityMajor: *v = capabilities[d] / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *v = capabilities[d] % 10; break;
    case cudaDevAttrMultiProcessorCount: *v = 132; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 232448; break;
    default: *v = 1;
    }
    return 0;
}
cudaError_t cudaDeviceSynchronize(void) { unsafe("deviceSync", 0); return 0; }
cudaError_t cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
cudaError_t cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
cudaError_t cudaGetLastError(void) { return 0; }
cudaError_t cudaPeekAtLastError(void) { return 0; }
const char *cudaGetErrorName(cudaError_t e) { return e == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "fake"; }
const char *cudaGetErrorString(cudaError_t e) { return e == OUT_OF_MEMORY ? "out of memory" : "fake"; }

/* Streams, events, captured graphs. */
static void *handle(void) { touch(); return (void *)__atomic_add_fetch(&handles, 16, __ATOMIC_SEQ_CST); }
cudaError_t cudaStreamCreate(cudaStream_t *s) { *s = handle(); return 0; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) { *s = handle(); return 0; }
cudaError_t cudaStreamDestroy(cudaStream_t s) { return 0; }
cudaError_t cudaStreamSynchronize(cudaStream_t s) { unsafe("streamSync", 0); return 0; }
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f) { return 0; }
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode m) {
    trace("beginCapture", 0); capturing = 1; return 0;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    capturing = 0; trace("endCapture", 0); *g = handle(); return 0;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *c) {
    *c = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone; return 0;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long f) { *e = handle(); return 0; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) {
    touch(); trace("graphLaunch", 0); add(GRAPH_LAUNCHES, 1); return 0;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) { return 0; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return 0; }
cudaError_t cudaEventCreate(cudaEvent_t *e) { *e = handle(); return 0; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) { *e = handle(); return 0; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return 0; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { touch(); return 0; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned f) { touch(); return 0; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { unsafe("eventSync", 0); return 0; }
cudaError_t cudaEventQuery(cudaEvent_t e) { unsafe("eventQuery", 0); return 0; }
cudaError_t cudaEventElapsedTime(float *m, cudaEvent_t a, cudaEvent_t b) { *m = 1; return 0; }

/* Kernels. */
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
    memset(a, 0, sizeof *a); a->maxThreadsPerBlock = 1024; return 0;
}
cudaError_t cudaFuncSetAttribute(const void *f, enum cudaFuncAttribute a, int v) { return 0; }
cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t f, enum cudaFuncAttribute a, int v, int d) { return 0; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t s, unsigned g) {
    *n = 2; return 0;
}
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) {
    launch("launch"); return 0;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **a) { launch("launchEx"); return 0; }
cudaError_t cudaLaunchCooperativeKernel(const void *f, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) {
    launch("launchCooperative"); return 0;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) {
    launch("launch"); return 0;
}
cudaError_t __cudaGetKernel(cudaKernel_t *k, const void *f) { *k = (cudaKernel_t)f; return 0; }
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *u) { f(u); return 0; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a); a->type = cudaMemoryTypeDevice; a->devicePointer = (void *)p; return 0;
}
void **__cudaRegisterFatBinary(void *f) { static void *x[4]; return x; }
void __cudaRegisterFatBinaryEnd(void **h) {}
void __cudaUnregisterFatBinary(void **h) {}
void __cudaRegisterFunction(void **h, const char *f, char *d, const char *n, int t, void *a, void *b, void *c, void *e,
                            int *g) {}
void __cudaRegisterVar(void **h, char *v, char *a, const char *n, int e, size_t s, int c, int g) {}

/* cuBLAS: products write nothing; where memory is short its handles are "not initialized" (1), as the real one's are. */
int cublasCreate_v2(void **h) {
    if (!take(current, CUBLAS_BYTES)) return 1;
    *h = block(CUBLAS_BYTES, 0); return 0;
}
int cublasDestroy_v2(void *h) { drop(h); return 0; }
int cublasSetStream_v2(void *h, void *s) { return 0; }
int cublasSetMathMode(void *h, int m) { return 0; }
int cublasGetMathMode(void *h, int *m) { *m = 0; return 0; }
int cublasGemmEx() { launch("gemm"); return 0; }
int cublasGemmStridedBatchedEx() { launch("gemmStrided"); return 0; }
int cublasGemmBatchedEx() { launch("gemmBatched"); return 0; }
int cublasSgemm_v2() { launch("gemm"); return 0; }
int cublasSgemmStridedBatched() { launch("gemmStrided"); return 0; }
int cublasSgemmBatched() { launch("gemmBatched"); return 0; }
int cublasSscal_v2() { launch("scale"); return 0; }
int cublasDgemm_v2() { launch("gemm"); return 0; }
int cublasScopy_v2() { launch("copy"); return 0; }
int cublasSgeam() { launch("geam"); return 0; }
int cublasLtCreate(void **h) { *h = handle(); return 0; }
int cublasLtDestroy(void *h) { return 0; }

/* The CUDA driver: devices have UUIDs of sevens that end in their number. */
int cuTensorMapEncodeTiled() { return 0; }
int cuInit(unsigned f) { return 0; }
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuDeviceGetCount(int *n) { *n = device_count; return 0; }
int cuDeviceGet(int *d, int n) { *d = n; return 0; }
int cuDeviceGetName(char *s, int n, int d) {
    snprintf(s, n, is_mig ? "Fake H100 MIG 1g.10gb" : "Fake H100"); return 0;
}
int cuDeviceGetAttribute(int *v, int a, int d) {
    *v = a == 75 ? capabilities[d] / 10 : a == 76 ? capabilities[d] % 10 : 0; return 0;
}
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = total; return 0; }
int cuDeviceGetUuid_v2(char *u, int d) { memset(u, 7, 16); u[15] = d; return 0; }

/* NVML, as far as metrics ask it; 2 is "invalid argument", 3 "not supported", 6 "not found". */
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned f) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int e) { return e == 6 ? "Not Found" : "Not Supported"; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { snprintf(s, n, "580.00"); return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **h) {
    const char *prefix = is_mig ? "MIG-" : "GPU-", *digits = "07070707-0707-0707-0707-0707070707";
    if (strncmp(uuid, prefix, 4) || strncmp(uuid + 4, digits, strlen(digits))) return 6;
    *h = (void *)(strtol(uuid + 4 + strlen(digits), 0, 16) + 1); return 0;
}
int nvmlDeviceGetMemoryInfo(void *h, unsigned long long *m) {
    m[0] = total; m[2] = used[(long)h - 1]; m[1] = total - m[2]; return 0;
}
int nvmlDeviceGetUtilizationRates(void *h, unsigned *u) { if (is_mig) return 3; u[0] = 50; u[1] = 5; return 0; }
int nvmlDeviceGetTemperature(void *h, int s, unsigned *t) { if (is_mig) return 2; *t = 40; return 0; }
int nvmlDeviceGetPowerUsage(void *h, unsigned *p) { if (is_mig) return 3; *p = 300000; return 0; }
int nvmlDeviceGetTotalEccErrors(void *h, int e, int c, unsigned long long *n) { if (is_mig) return 3; *n = 0; return 0; }
