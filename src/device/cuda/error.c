/* The one place that translates CUDA's, cuDNN's and cuBLAS's errors. */
#include "device/cuda/cuda.h"

/* What older headers have no names for; newer drivers tell them all the same. */
enum { CONTAINED = 226, TENSOR_MEMORY_LEAK = 721, MPS_CLIENT_TERMINATED = 810 };
#if CUDART_VERSION >= 13000
_Static_assert((int)cudaErrorContained == CONTAINED &&
                   (int)cudaErrorTensorMemoryLeak == TENSOR_MEMORY_LEAK &&
                   (int)cudaErrorMpsClientTerminated == MPS_CLIENT_TERMINATED,
               "CUDA's numbers");
#endif

/* What leaves the process's context of a device unusable. */
static bool is_sticky(cudaError_t code)
{
    switch ((int)code) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorAssert:
    case cudaErrorContextIsDestroyed:
    case cudaErrorDevicesUnavailable:
    case cudaErrorUnknown:
    case CONTAINED:
    case TENSOR_MEMORY_LEAK:
    case MPS_CLIENT_TERMINATED:
        return true;
    default:
        return false;
    }
}

static void mark_lost(struct sac_cuda_device *device, cudaError_t code, const char *what)
{
    pthread_mutex_lock(&device->down_lock);
    if (!atomic_load(&device->down)) {
        sac_fail(&device->lost_to, SAC_EDEVICE, "%s is lost: %s: %s (%s)", device->base.info.name,
                 what, cudaGetErrorString(code), cudaGetErrorName(code));
        atomic_store(&device->down, true);
    }
    pthread_mutex_unlock(&device->down_lock);
}

int sac_cuda_health(struct sac_device *base, struct sac_error *err)
{
    struct sac_cuda_device *device = (struct sac_cuda_device *)base;

    if (!atomic_load_explicit(&device->down, memory_order_acquire))
        return 0;
    pthread_mutex_lock(&device->down_lock);
    int rc = sac_fail(err, SAC_EDEVICE, "%s", device->lost_to.text);
    pthread_mutex_unlock(&device->down_lock);
    return rc;
}

void sac_cuda_mark_found(struct sac_cuda_device *device)
{
    pthread_mutex_lock(&device->down_lock);
    atomic_store(&device->down, false);
    device->lost_to = (struct sac_error){0};
    pthread_mutex_unlock(&device->down_lock);
}

int sac_cuda_check(struct sac_cuda_device *device, cudaError_t code, const char *what,
                   struct sac_error *err)
{
    if (code == cudaSuccess)
        return 0;
    cudaGetLastError(); /* an error that is told is not told again to the next call */
    if (is_sticky(code))
        mark_lost(device, code, what);
    return sac_fail(err, code == cudaErrorMemoryAllocation ? SAC_ENOMEM : SAC_EDEVICE,
                    "%s: %s: %s (%s)", device->base.info.name, what, cudaGetErrorString(code),
                    cudaGetErrorName(code));
}

/* A library's failure is CUDA's when CUDA has one to tell. */
static int check_library(struct sac_cuda_device *device, const char *what, const char *library,
                         const char *why, int number, int code, struct sac_error *err)
{
    cudaError_t cause = cudaPeekAtLastError();

    if (is_sticky(cause))
        return sac_cuda_check(device, cause, what, err);
    cudaGetLastError();
    return sac_fail(err, code, "%s: %s: %s says %s (%d)", device->base.info.name, what, library,
                    why, number);
}

int sac_cudnn_check(struct sac_cuda_device *device, cudnnStatus_t code, const char *what,
                    struct sac_error *err)
{
    if (code == CUDNN_STATUS_SUCCESS)
        return 0;
    return check_library(device, what, "cuDNN", cudnnGetErrorString(code), (int)code,
                         code == CUDNN_STATUS_NOT_SUPPORTED  ? SAC_EUNSUPPORTED
                         : code == CUDNN_STATUS_ALLOC_FAILED ? SAC_ENOMEM
                                                             : SAC_EDEVICE,
                         err);
}

/* cublasGetStatusString came with CUDA 11.4. */
static const char *cublas_text(cublasStatus_t code)
{
    switch (code) {
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "out of memory";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an invalid value";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "not on this card";
    case CUBLAS_STATUS_MAPPING_ERROR:
        return "a mapping error";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "execution failed";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "an internal error";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "not supported";
    default:
        return "an error";
    }
}

int sac_cublas_check(struct sac_cuda_device *device, cublasStatus_t code, const char *what,
                     struct sac_error *err)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return 0;
    return check_library(device, what, "cuBLAS", cublas_text(code), (int)code,
                         code == CUBLAS_STATUS_NOT_SUPPORTED  ? SAC_EUNSUPPORTED
                         : code == CUBLAS_STATUS_ALLOC_FAILED ? SAC_ENOMEM
                                                              : SAC_EDEVICE,
                         err);
}

int sac_cuda_use(struct sac_cuda_device *device, struct sac_error *err)
{
    return sac_cuda_check(device, cudaSetDevice(device->index), "choosing it", err);
}
