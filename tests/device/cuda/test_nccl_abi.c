/* What the module takes NCCL's functions and constants for is what NCCL's header says, and
 * the library that is linked here has them all. Needs no card. */
#include "support/support.h"

#include <nccl.h>

#include "device/cuda/nccl.h"

#define SAME_VALUE(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)
SAME_VALUE(SAC_NCCL_SUCCESS, ncclSuccess);
SAME_VALUE(SAC_NCCL_CUDA_ERROR, ncclUnhandledCudaError);
SAME_VALUE(SAC_NCCL_REMOTE_ERROR, ncclRemoteError);
SAME_VALUE(SAC_NCCL_IN_PROGRESS, ncclInProgress);
SAME_VALUE(SAC_NCCL_FLOAT32, ncclFloat32);
SAME_VALUE(SAC_NCCL_SUM, ncclSum);
SAME_VALUE(sizeof(struct sac_nccl_id), sizeof(ncclUniqueId));
SAME_VALUE(sizeof(ncclResult_t), sizeof(int));
SAME_VALUE(sizeof(ncclDataType_t), sizeof(int));
SAME_VALUE(sizeof(ncclRedOp_t), sizeof(int));

#define SAME_PLACE(field)                                                                          \
    _Static_assert(offsetof(struct sac_nccl_config, field) == offsetof(ncclConfig_t, field), #field)
SAME_PLACE(size);
SAME_PLACE(magic);
SAME_PLACE(version);
SAME_PLACE(blocking);
SAME_VALUE(offsetof(struct sac_nccl_config, not_set), offsetof(ncclConfig_t, cgaClusterSize));
SAME_VALUE(SAC_NCCL_NOT_SET, NCCL_CONFIG_UNDEF_INT);

/* Each function with the types that the header gives it, as ours names them. */
#define SAME_CALL(theirs, result, ...)                                                             \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&theirs), result (*)(__VA_ARGS__)),     \
                   #theirs)
SAME_CALL(ncclGetVersion, ncclResult_t, int *);
SAME_CALL(ncclGetUniqueId, ncclResult_t, ncclUniqueId *);
SAME_CALL(ncclCommInitRank, ncclResult_t, struct ncclComm **, int, ncclUniqueId, int);
SAME_CALL(ncclCommInitRankConfig, ncclResult_t, struct ncclComm **, int, ncclUniqueId, int,
          ncclConfig_t *);
SAME_CALL(ncclCommGetAsyncError, ncclResult_t, struct ncclComm *, ncclResult_t *);
SAME_CALL(ncclCommAbort, ncclResult_t, struct ncclComm *);
SAME_CALL(ncclCommFinalize, ncclResult_t, struct ncclComm *);
SAME_CALL(ncclCommDestroy, ncclResult_t, struct ncclComm *);
SAME_CALL(ncclAllReduce, ncclResult_t, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
          struct ncclComm *, cudaStream_t);
SAME_CALL(ncclBroadcast, ncclResult_t, const void *, void *, size_t, ncclDataType_t, int,
          struct ncclComm *, cudaStream_t);
SAME_CALL(ncclGetErrorString, const char *, ncclResult_t);
SAME_CALL(ncclGetLastError, const char *, struct ncclComm *);

static void the_linked_library_is_found_and_has_every_call(void **state)
{
    const struct sac_nccl *nccl = NULL;
    struct sac_error err = {0};
    int version = 0;
    char text[32];

    (void)state;
    assert_int_equal(ncclGetVersion(&version), ncclSuccess);
    assert_ok(sac_nccl_get(&nccl, &err), err);
    assert_int_equal(nccl->version, version);
    assert_ptr_equal((void *)nccl->all_reduce, (void *)ncclAllReduce);
    assert_ptr_equal((void *)nccl->broadcast, (void *)ncclBroadcast);
    assert_ptr_equal((void *)nccl->comm_init_rank_config, (void *)ncclCommInitRankConfig);
    assert_ptr_equal((void *)nccl->comm_finalize, (void *)ncclCommFinalize);
    assert_string_equal(nccl->get_error_string(SAC_NCCL_SUCCESS), ncclGetErrorString(ncclSuccess));
    sac_nccl_describe(nccl, text, sizeof text);
    print_message("# %s\n", text);
}

static void versions_of_both_kinds_are_read(void **state)
{
    char text[32];

    (void)state;
    sac_nccl_describe(&(struct sac_nccl){.version = 2708}, text, sizeof text);
    assert_string_equal(text, "NCCL 2.7.8"); /* NVIDIA's number of it */
    sac_nccl_describe(&(struct sac_nccl){.version = NCCL_VERSION(2, 19, 3)}, text, sizeof text);
    assert_string_equal(text, "NCCL 2.19.3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_linked_library_is_found_and_has_every_call),
        cmocka_unit_test(versions_of_both_kinds_are_read),
    };

    return cmocka_run_group_tests_name("nccl_abi", tests, NULL, NULL);
}
