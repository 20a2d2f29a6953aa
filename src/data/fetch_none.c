/* Without libcurl, nothing is fetched, and a sentence says so. */
#include "data/fetch.h"

static int refuse(struct sac_error *err)
{
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "this program was built without libcurl and cannot fetch anything");
}

int sac_fetcher_new(struct sac_fetcher **ret, struct sac_error *err)
{
    (void)ret;
    return refuse(err);
}

void sac_fetcher_free(struct sac_fetcher *fetcher)
{
    (void)fetcher;
}

const char *sac_fetcher_url(const struct sac_fetcher *fetcher)
{
    (void)fetcher;
    return "";
}

int sac_fetch_file(struct sac_fetcher *fetcher, const char *url, const char *path,
                   const struct sac_fetch_options *options, struct sac_fetch_result *ret,
                   struct sac_error *err)
{
    (void)fetcher, (void)url, (void)path, (void)options, (void)ret;
    return refuse(err);
}

int sac_fetch_page(struct sac_fetcher *fetcher, const char *url,
                   const struct sac_fetch_options *options, struct sac_buf *ret,
                   struct sac_error *err)
{
    (void)fetcher, (void)url, (void)options, (void)ret;
    return refuse(err);
}
