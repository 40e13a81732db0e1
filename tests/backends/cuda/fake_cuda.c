/* A fake CUDA device for rehearsals: its memory is the host's, copies happen at once, kernels and matrix products write
 * nothing, streams and events are numbers. ONNX Runtime's real CUDA provider runs on it, so that what it decides on the
 * host can be seen without a GPU: where nodes are placed, what is copied, which attention kernel is taken, and whether
 * launches can be captured. Values mean nothing. Built and used by `make gpu-rehearsal`. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include "cuda_runtime_api.h"
static int trace=-1;
static void T(const char*n){ if(trace<0) trace=getenv("FAKE_CUDA_TRACE")!=0; if(trace) fprintf(stderr,"[fake] %s\n",n); }
static size_t used=0; static size_t total=80ull<<30;
cudaError_t cudaSetDevice(int d){return 0;}
cudaError_t cudaGetDevice(int*d){*d=0;return 0;}
cudaError_t cudaGetDeviceCount(int*d){*d=1;return 0;}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp*p,int d){memset(p,0,sizeof*p);strcpy(p->name,"Fake H100");p->major=9;p->minor=0;p->totalGlobalMem=total;p->multiProcessorCount=132;p->maxThreadsPerBlock=1024;p->warpSize=32;p->sharedMemPerBlock=49152;p->sharedMemPerBlockOptin=232448;p->sharedMemPerMultiprocessor=233472;p->maxThreadsPerMultiProcessor=2048;p->maxGridSize[0]=2147483647;p->maxGridSize[1]=65535;p->maxGridSize[2]=65535;p->maxThreadsDim[0]=1024;p->maxThreadsDim[1]=1024;p->maxThreadsDim[2]=64;p->regsPerBlock=65536;p->regsPerMultiprocessor=65536;p->l2CacheSize=50<<20;return 0;}
cudaError_t cudaDeviceGetAttribute(int*v,enum cudaDeviceAttr a,int d){switch(a){case cudaDevAttrComputeCapabilityMajor:*v=9;break;case cudaDevAttrComputeCapabilityMinor:*v=0;break;case cudaDevAttrMultiProcessorCount:*v=132;break;case cudaDevAttrMaxSharedMemoryPerBlockOptin:*v=232448;break;default:*v=1;}return 0;}
cudaError_t cudaMemGetInfo(size_t*f,size_t*t){*f=total-used;*t=total;return 0;}
cudaError_t cudaMalloc(void**p,size_t n){*p=aligned_alloc(256,(n+255)/256*256);used+=n;T("malloc");return 0;}
cudaError_t cudaFree(void*p){free(p);return 0;}
cudaError_t cudaMallocHost(void**p,size_t n){*p=aligned_alloc(256,(n+255)/256*256);return 0;}
cudaError_t cudaHostAlloc(void**p,size_t n,unsigned f){*p=aligned_alloc(256,(n+255)/256*256);return 0;}
cudaError_t cudaFreeHost(void*p){free(p);return 0;}
cudaError_t cudaHostRegister(void*p,size_t n,unsigned f){return 0;}
cudaError_t cudaMemcpy(void*d,const void*s,size_t n,enum cudaMemcpyKind k){memcpy(d,s,n);T("memcpy");return 0;}
cudaError_t cudaMemcpyAsync(void*d,const void*s,size_t n,enum cudaMemcpyKind k,cudaStream_t st){memcpy(d,s,n);T("memcpyAsync");return 0;}
cudaError_t cudaMemcpy2DAsync(void*d,size_t dp,const void*s,size_t sp,size_t w,size_t h,enum cudaMemcpyKind k,cudaStream_t st){for(size_t i=0;i<h;i++)memcpy((char*)d+i*dp,(const char*)s+i*sp,w);T("memcpy2D");return 0;}
cudaError_t cudaMemset(void*p,int v,size_t n){memset(p,v,n);return 0;}
cudaError_t cudaMemsetAsync(void*p,int v,size_t n,cudaStream_t s){memset(p,v,n);return 0;}
static long handles=0x1000;
cudaError_t cudaStreamCreate(cudaStream_t*s){*s=(cudaStream_t)(handles+=16);return 0;}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*s,unsigned f){*s=(cudaStream_t)(handles+=16);return 0;}
cudaError_t cudaStreamDestroy(cudaStream_t s){return 0;}
cudaError_t cudaStreamSynchronize(cudaStream_t s){T("streamSync");return 0;}
cudaError_t cudaDeviceSynchronize(void){T("deviceSync");return 0;}
cudaError_t cudaStreamWaitEvent(cudaStream_t s,cudaEvent_t e,unsigned f){return 0;}
static int capturing=0;
cudaError_t cudaStreamBeginCapture(cudaStream_t s,enum cudaStreamCaptureMode m){capturing=1;T("beginCapture");return 0;}
cudaError_t cudaStreamEndCapture(cudaStream_t s,cudaGraph_t*g){capturing=0;*g=(cudaGraph_t)(handles+=16);T("endCapture");return 0;}
cudaError_t cudaStreamIsCapturing(cudaStream_t s,enum cudaStreamCaptureStatus*c){*c=capturing?cudaStreamCaptureStatusActive:cudaStreamCaptureStatusNone;return 0;}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*e,cudaGraph_t g,unsigned long long f){*e=(cudaGraphExec_t)(handles+=16);return 0;}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e,cudaStream_t s){T("graphLaunch");return 0;}
cudaError_t cudaGraphDestroy(cudaGraph_t g){return 0;}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g){return 0;}
cudaError_t cudaEventCreate(cudaEvent_t*e){*e=(cudaEvent_t)(handles+=16);return 0;}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*e,unsigned f){*e=(cudaEvent_t)(handles+=16);return 0;}
cudaError_t cudaEventDestroy(cudaEvent_t e){return 0;}
cudaError_t cudaEventRecord(cudaEvent_t e,cudaStream_t s){return 0;}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e,cudaStream_t s,unsigned f){return 0;}
cudaError_t cudaEventSynchronize(cudaEvent_t e){T("eventSync");return 0;}
cudaError_t cudaEventQuery(cudaEvent_t e){return 0;}
cudaError_t cudaEventElapsedTime(float*m,cudaEvent_t a,cudaEvent_t b){*m=1;return 0;}
cudaError_t cudaDriverGetVersion(int*v){*v=13000;return 0;}
cudaError_t cudaRuntimeGetVersion(int*v){*v=13000;return 0;}
cudaError_t cudaGetLastError(void){return 0;}
cudaError_t cudaPeekAtLastError(void){return 0;}
const char* cudaGetErrorName(cudaError_t e){return "fake";}
const char* cudaGetErrorString(cudaError_t e){return "fake";}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes*a,const void*f){memset(a,0,sizeof*a);a->maxThreadsPerBlock=1024;return 0;}
cudaError_t cudaFuncSetAttribute(const void*f,enum cudaFuncAttribute a,int v){return 0;}
cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t f,enum cudaFuncAttribute a,int v,int d){return 0;}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int*n,const void*f,int b,size_t s,unsigned g){*n=2;return 0;}
cudaError_t cudaLaunchKernel(const void*f,dim3 g,dim3 b,void**a,size_t s,cudaStream_t st){T("launch");return 0;}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*c,const void*f,void**a){T("launchEx");return 0;}
cudaError_t cudaLaunchCooperativeKernel(const void*f,dim3 g,dim3 b,void**a,size_t s,cudaStream_t st){return 0;}
cudaError_t __cudaLaunchKernel(cudaKernel_t f,dim3 g,dim3 b,void**a,size_t s,cudaStream_t st){T("launch");return 0;}
cudaError_t __cudaGetKernel(cudaKernel_t*k,const void*f){*k=(cudaKernel_t)f;return 0;}
cudaError_t cudaLaunchHostFunc(cudaStream_t s,cudaHostFn_t f,void*u){f(u);return 0;}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes*a,const void*p){memset(a,0,sizeof*a);a->type=cudaMemoryTypeDevice;a->devicePointer=(void*)p;return 0;}
void** __cudaRegisterFatBinary(void*f){static void*x[4];return x;}
void __cudaRegisterFatBinaryEnd(void**h){}
void __cudaUnregisterFatBinary(void**h){}
void __cudaRegisterFunction(void**h,const char*f,char*d,const char*n,int t,void*a,void*b,void*c,void*e,int*g){}
void __cudaRegisterVar(void**h,char*v,char*a,const char*n,int e,size_t s,int c,int g){}
cudaError_t cudaMemcpyFromSymbol(void*d,const void*s,size_t n,size_t o,enum cudaMemcpyKind k){memset(d,0,n);return 0;}
/* cuBLAS: products write nothing. */
int cublasCreate_v2(void**h){*h=(void*)(handles+=16);return 0;}
int cublasDestroy_v2(void*h){return 0;}
int cublasSetStream_v2(void*h,void*s){return 0;}
int cublasSetMathMode(void*h,int m){return 0;}
int cublasGetMathMode(void*h,int*m){*m=0;return 0;}
int cublasGemmEx(){T("gemmEx");return 0;}
int cublasGemmStridedBatchedEx(){T("gemmStridedEx");return 0;}
int cublasGemmBatchedEx(){return 0;}
int cublasSgemm_v2(){T("sgemm");return 0;}
int cublasSgemmStridedBatched(){return 0;}
int cublasSgemmBatched(){return 0;}
int cublasSscal_v2(){return 0;}
int cublasDgemm_v2(){return 0;}
int cublasScopy_v2(){return 0;}
int cublasSgeam(){return 0;}
int cublasLtCreate(void**h){*h=(void*)(handles+=16);return 0;}
int cublasLtDestroy(void*h){return 0;}
/* The CUDA driver. */
int cuTensorMapEncodeTiled(){return 0;}
int cuInit(unsigned f){return 0;}
int cuDriverGetVersion(int*v){*v=13000;return 0;}
int cuDeviceGetCount(int*n){*n=1;return 0;}
int cuDeviceGet(int*d,int n){*d=n;return 0;}
int cuDeviceGetName(char*s,int n,int d){strncpy(s,"Fake H100",n);return 0;}
int cuDeviceGetAttribute(int*v,int a,int d){*v=a==75?9:0;return 0;}
int cuDeviceTotalMem_v2(size_t*n,int d){*n=total;return 0;}
int cuDeviceGetUuid_v2(char*u,int d){memset(u,7,16);return 0;}
