/*
 * Answers as text, the same from the server and from `classify`. Any thread.
 */
#ifndef SAC_MODEL_ANSWER_H
#define SAC_MODEL_ANSWER_H

#include "base/buf.h"
#include "model/model.h"

/* GPU REST Engine's list, compact, four decimals:
 * [{"confidence":0.9998,"label":"n02123045 tabby, tabby cat"},…] */
void sac_answer_put_json(struct sac_buf *out, const struct sac_model *model,
                         const struct sac_topk_pair *pairs, int count);

#endif
