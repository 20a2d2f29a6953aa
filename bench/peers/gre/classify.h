/* GPU REST Engine's design on a CPU, written anew for comparison: a pool of contexts,
 * each with a net of its own, behind one blocking call. */
#ifdef __cplusplus
extern "C" {
#endif

/* NULL: an error, on standard error. One context a core. */
void *classifier_new(const char *deploy, const char *weights, const char *labels, int contexts,
                     int side);
/* JSON, to be freed; NULL: no picture. Any thread; waits for a context. */
char *classifier_run(void *classifier, const void *bytes, unsigned long size);

#ifdef __cplusplus
}
#endif
